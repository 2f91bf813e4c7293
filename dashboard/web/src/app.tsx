// The page: which screen is shown follows from the address alone.
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { AGAIN, neededToEnter } from "./api";
import { Board } from "./board";
import { Group } from "./group";
import { LoadAnew, LogIn } from "./login";
import { letIn } from "./session";
import { askedFor } from "./time";
import { MOST } from "./together";
import { Watch } from "./watch";

/** Goes to an address of the page without loading it anew. */
export function go(address: string, replace = false): void {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  dispatchEvent(new PopStateEvent("popstate"));
  if (replace) return;
  // As after loading a page: at its top, and who hears it hears what it is.
  scrollTo(0, 0);
  requestAnimationFrame(() => document.querySelector("h1")?.focus({ preventScroll: true }));
}

function App() {
  const [address, setAddress] = useState(location.search);
  const [asked, setAsked] = useState<"" | "token" | "elsewhere">("");
  useEffect(() => {
    const moved = () => setAddress(location.search);
    const ask = () =>
      void neededToEnter().then((what) => {
        setAsked(what);
        // An answer from before the login, or a login in another tab.
        if (!what) setTimeout(letIn, AGAIN);
      });
    addEventListener("popstate", moved);
    addEventListener("log-in", ask);
    return () => {
      removeEventListener("popstate", moved);
      removeEventListener("log-in", ask);
    };
  }, []);
  const entered = () => {
    setAsked("");
    letIn();
  };
  return (
    <>
      {asked && <div key="above" class="above">{asked === "token" ? <LogIn done={entered} /> : <LoadAnew />}</div>}
      {/* It stays as it is: what was marked, and what is prepared for download. */}
      <div key="screen" inert={asked !== ""}><Screen address={address} /></div>
    </>
  );
}

function Screen({ address }: { address: string }) {
  const query = new URLSearchParams(address);
  const cameras = [...new Set(query.getAll("cam"))].slice(0, MOST);
  const [camera] = cameras;
  if (camera === undefined) return <Board />;
  const at = askedFor(query.get("t") ?? "");
  if (cameras.length > 1) return <Group key={cameras.join("\0")} cameras={cameras} at={at} />;
  return <Watch key={camera} camera={camera} at={at} />;
}

const root = document.getElementById("app");
if (root) render(<App />, root);
