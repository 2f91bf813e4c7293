// Links inside the page.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { go } from "./app";
import { iso } from "./time";

/** The address of a camera, at an instant (ms) if one is given. */
export function address(camera: string, at?: number): string {
  return addressOf([camera], at);
}

/** The address of cameras beside each other. */
export function addressOf(cameras: string[], at?: number): string {
  const query = new URLSearchParams(cameras.map((camera) => ["cam", camera]));
  if (at !== undefined) query.set("t", iso(at));
  return `/?${query}`;
}

/** How long a picture stands before the address is that of it, ms: browsers let it be changed some hundred times in half a minute. */
const RESTS = 300;

/** Keeps the address at the picture that is shown, where it stands and when a login is asked for; `to` is undefined while there is none. */
export function useHeld(to: string | undefined, isStill: boolean): void {
  const latest = useRef(to);
  latest.current = to;
  // The screen is what it is: nothing need hear of it.
  const hold = () => void (latest.current && history.replaceState(null, "", latest.current));
  useEffect(() => {
    addEventListener("log-in", hold);
    return () => removeEventListener("log-in", hold);
  }, []);
  useEffect(() => {
    if (!isStill) return;
    const timer = setTimeout(hold, RESTS);
    return () => clearTimeout(timer);
  }, [to, isStill]);
}

/** Follows a link without loading the page anew, unless the browser is to open it elsewhere. */
export function followed(event: MouseEvent): void {
  if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go((event.currentTarget as HTMLAnchorElement).getAttribute("href") ?? "/");
}

export function CameraLink({ camera, at, children }: { camera: string; at?: number; children: ComponentChildren }) {
  return <a href={address(camera, at)} onClick={followed}>{children}</a>;
}
