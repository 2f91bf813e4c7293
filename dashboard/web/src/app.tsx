// The page. The address alone decides which screen is shown.
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

/** Goes to an address of the page without reloading it. `replace` adds no history entry and keeps scroll position and focus. */
export function go(address: string, replace = false): void {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  dispatchEvent(new PopStateEvent("popstate"));
  if (replace) return;
  // As after loading a page: scroll to the top, and focus the heading so that screen readers read it.
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
        // No login is needed: the 401 was older than a login, perhaps in another tab. Let the waiting requests go on.
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
      {/* The screen stays mounted below the login, so that a marked range and a prepared download are kept. */}
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
  // The keys mount a new screen for other cameras: the players inside are made once for each mount.
  if (cameras.length > 1) return <Group key={cameras.join("\0")} cameras={cameras} at={at} />;
  return <Watch key={camera} camera={camera} at={at} />;
}

const root = document.getElementById("app");
if (root) render(<App />, root);
