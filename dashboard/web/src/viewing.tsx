// Shared by the screens of one camera and of several: timelines, keys, the preview while the bar is dragged.
import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { useAnswer } from "./answer";
import { type About, type Timeline, get } from "./api";
import { type Skipped, type View, asked, described, instantOfPicture } from "./bar";
import { meant } from "./keys";
import { clock, date, iso, setZone, unknownZone, zone } from "./time";

export const SPEEDS = [0.5, 1, 2, 4, 8, 16];
export const NOTHING: Timeline = { ranges: [], gaps: [], pending: [] };

/** Adds the reason of a skipped time, if it has none and the time bar knows it. */
export function withReason(skipped: Skipped, timelines: Timeline[]): Skipped {
  if (skipped.reason) return skipped;
  const gaps = timelines.flatMap((timeline) => {
    const known = described(timeline, skipped.at);
    return typeof known === "object" ? [known.gap] : [];
  });
  return { ...skipped, reason: gaps[0] };
}

export const noGap = (direction: 1 | -1): string => `no gap in the month ${direction > 0 ? "after" : "before"} this`;

/** Says that this device has no network. What is loaded plays on, and nothing else would explain why it stops later. */
export function Offline() {
  const [isOffline, setOffline] = useState(!navigator.onLine);
  useEffect(() => {
    const changed = () => setOffline(!navigator.onLine);
    addEventListener("online", changed);
    addEventListener("offline", changed);
    return () => {
      removeEventListener("online", changed);
      removeEventListener("offline", changed);
    };
  }, []);
  return isOffline ? <p class="trouble" role="alert">This device has no network. What is loaded plays on; the rest follows when the network is back.</p> : null;
}

/** Says what cannot be shown and why, or that it is still loading. */
export function Fault({ what, fault, isSlow = false }: { what: string; fault: string; isSlow?: boolean }) {
  if (isSlow && !fault) return <p class="quiet" role="status">{what}: loading…</p>;
  return fault ? <p class="trouble" role="alert">{what} cannot be shown: {fault}</p> : null;
}

/** The timelines of several cameras, and the span that they cover. */
export interface Known { timelines: Timeline[]; covered: View }

/** Returns the timelines of the cameras in the view and around it. Requests them once the view does not move. */
export function useTimelines(cameras: string[], view: View, now: number): Known & { fault: string; isSlow: boolean } {
  const { from, to } = asked(view);
  const key = JSON.stringify([cameras, from, to]);
  const ask = async (signal: AbortSignal): Promise<Known> => ({
    covered: { from, to },
    timelines: await Promise.all(cameras.map((camera) => get<Timeline>("/api/timeline", { camera, from: iso(from), to: iso(to) }, signal))),
  });
  // `isNear`: the old timelines stay on the bar until the new ones arrive. While the view reaches into the future, each change of `now` updates them.
  const { answer, fault, isSlow } = useAnswer(key, ask, { isNear: true, delay: 120, news: view.to > now ? now : 0 });
  return { timelines: answer?.timelines ?? [], covered: answer?.covered ?? { from, to }, fault, isSlow };
}

/** Shows times in UTC, or in the camera's zone if its list names one. Resets to the browser's zone when the screen is left. */
export function useZone(camera: string, isUtc: boolean): void {
  const { answer: about } = useAnswer("zones", (signal) => get<About>("/api/about", {}, signal));
  useEffect(() => () => setZone(undefined), []);
  // A camera's id may be the name of an inherited property, such as `constructor`.
  setZone(isUtc ? "UTC" : about && Object.hasOwn(about.zones, camera) ? about.zones[camera] : undefined);
}

/** Calls the action of a pressed key, unless the focused element needs that key. */
export function useKeys(actions: Record<string, () => void>): void {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      const key = meant(event);
      // The screen below the login (`inert`) takes no keys.
      if (!key || target.closest("input:not([type=checkbox]), textarea") || document.querySelector("[inert]")) return;
      // A list selects entries by typed letters. In a list of numbers they select nothing, so they work as keys of the page.
      if (target.closest("select") && !(target.closest("select.numbers") && /^[a-z]$/.test(key))) return;
      // A focused button, link or checkbox handles the space bar itself.
      if (key === " " && target.closest("button, a, summary, input")) return;
      const action = latest.current[key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

/** Shows the instant in the camera's zone and in UTC. */
export function When({ at, isUtc, setUtc, children }: { at: number; isUtc: boolean; setUtc: (isUtc: boolean) => void; children: ComponentChildren }) {
  return (
    <p class="when">
      <time dateTime={iso(at)}>{clock(at)}</time> {date(at)}
      <span class="quiet"> {zone()}{zone() !== "UTC" && ` · ${iso(at).slice(11, 19)} UTC`}{unknownZone() && ` · this browser does not know the camera's zone "${unknownZone()}"`}</span>
      <label class="check"><input type="checkbox" checked={isUtc} onChange={(event) => setUtc(event.currentTarget.checked)} /> UTC</label>
      {children}
    </p>
  );
}

/** Shows the first picture of the chunk at an instant, while the bar is dragged. Dark if nothing is recorded there. */
export function Peek({ camera, at, timeline }: { camera: string; at: number; timeline: Timeline }) {
  const known = instantOfPicture(timeline, at);
  if (known === undefined) return <div class="peek" />;
  const t = iso(known);
  return <video class="peek" src={`/preview?${new URLSearchParams({ camera, t })}`} muted playsInline preload="auto" aria-hidden="true" />;
}
