// Links inside the page.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { go } from "./app";
import { iso } from "./time";

/** Returns the address of a camera, at an instant (ms) if one is given. */
export function address(camera: string, at?: number): string {
  return addressOf([camera], at);
}

/** Returns the address of one or more cameras on one clock. */
export function addressOf(cameras: string[], at?: number): string {
  const query = new URLSearchParams(cameras.map((camera) => ["cam", camera]));
  if (at !== undefined) query.set("t", iso(at));
  return `/?${query}`;
}

/** How long a picture is still before the address changes to its instant, ms: browsers limit changes to some hundred in half a minute. */
const RESTS = 300;

/**
 * Sets the address to that of the shown picture when it is still, and when a login is requested, which may reload the page. `to` is `undefined` while
 * there is no picture.
 */
export function useHeld(to: string | undefined, isStill: boolean): void {
  const latest = useRef(to);
  latest.current = to;
  // Without a popstate event, since the screen already shows this instant.
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

/** Follows a link without reloading the page. Leaves clicks that open another tab or window, or download, to the browser. */
export function followed(event: MouseEvent): void {
  if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go((event.currentTarget as HTMLAnchorElement).getAttribute("href") ?? "/");
}

export function CameraLink({ camera, at, children }: { camera: string; at?: number; children: ComponentChildren }) {
  return <a href={address(camera, at)} onClick={followed}>{children}</a>;
}
