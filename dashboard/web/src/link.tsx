// Links inside the page.
import type { ComponentChildren } from "preact";
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

/** Follows a link without loading the page anew, unless the browser is to open it elsewhere. */
export function followed(event: MouseEvent): void {
  if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go((event.currentTarget as HTMLAnchorElement).getAttribute("href") ?? "/");
}

export function CameraLink({ camera, at, children }: { camera: string; at?: number; children: ComponentChildren }) {
  return <a href={address(camera, at)} onClick={followed}>{children}</a>;
}
