// What the screens of one camera and of several share: timelines, keys, the picture under the pointer, the table.
import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { AGAIN, type About, ApiError, type Timeline, get } from "./api";
import { type Skipped, type View, asked, described, instantOfPicture } from "./bar";
import { askForToken } from "./login";
import { clock, date, iso, moment, setZone, span, unknownZone, zone } from "./time";
import { reason } from "./words";

export const SPEEDS = [0.5, 1, 2, 4, 8, 16];
export const NOTHING: Timeline = { ranges: [], gaps: [], pending: [] };

/** Does something again and again while the page is seen: a hidden one need not ask the bucket. Returns what ends that. */
export function whileSeen(work: () => void, every: number): () => void {
  const again = () => void (document.hidden || work());
  const timer = setInterval(again, every);
  document.addEventListener("visibilitychange", again);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", again);
  };
}

/** Asks until it is answered, and tells what is wrong meanwhile; again when the key changes. With `isNear` the last answer is shown until the next one comes. */
export function useAnswer<T>(key: string, ask: (signal: AbortSignal) => Promise<T>, isNear = false, delay = 0): { answer: T | null; fault: string } {
  const [known, setKnown] = useState<{ key: string; answer: T } | null>(null);
  const [fault, setFault] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout>;
    const attempt = () =>
      void ask(stop.signal).then(
        (found) => {
          setKnown({ key, answer: found });
          setFault("");
        },
        (error: Error) => {
          if (stop.signal.aborted) return;
          if (error instanceof ApiError && error.status === 401) return askForToken();
          setFault(error instanceof ApiError ? `${error.message}. ${error.hint}` : error.message);
          timer = setTimeout(attempt, AGAIN);
        },
      );
    timer = setTimeout(attempt, delay);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [key]);
  // What answers another question is none to this one, unless it is near enough.
  return { answer: known && (isNear || known.key === key) ? known.answer : null, fault };
}

/** What was skipped, with its reason as far as the time bar has it. */
export function withReason(skipped: Skipped, timelines: Timeline[]): Skipped {
  if (skipped.reason) return skipped;
  const gaps = timelines.flatMap((timeline) => {
    const known = described(timeline, skipped.at);
    return typeof known === "object" ? [known.gap] : [];
  });
  return { ...skipped, reason: gaps[0] };
}

export const noGap = (direction: 1 | -1): string => `no gap in the month ${direction > 0 ? "after" : "before"} this`;

/** Says that this device has no network: what is loaded plays on, and nothing else would say why it stops then. */
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

/** Says what cannot be shown, and why. */
export function Fault({ what, fault }: { what: string; fault: string }) {
  return fault ? <p class="trouble" role="alert">{what} cannot be shown: {fault}</p> : null;
}

/** The timelines of several cameras, and of what time they tell. */
export interface Known { timelines: Timeline[]; told: View }

/** What is stored of each camera in the view and around it; asked for when the view rests. */
export function useTimelines(cameras: string[], view: View, now: number): Known & { fault: string } {
  const { from, to } = asked(view);
  const news = view.to > now ? now : 0;
  const key = JSON.stringify([cameras, from, to, news]);
  const ask = async (signal: AbortSignal): Promise<Known> => ({
    told: { from, to },
    timelines: await Promise.all(cameras.map((camera) => get<Timeline>("/api/timeline", { camera, from: iso(from), to: iso(to) }, signal))),
  });
  // What cannot be read now stays as it was known.
  const { answer, fault } = useAnswer(key, ask, true, 120);
  return { timelines: answer?.timelines ?? [], told: answer?.told ?? { from, to }, fault };
}

/** Shows times in the camera's zone, if its list names one, or in UTC; in the browser's once the screen is left. */
export function useZone(camera: string, isUtc: boolean): void {
  const { answer: about } = useAnswer("zones", (signal) => get<About>("/api/about", {}, signal));
  useEffect(() => () => setZone(undefined), []);
  setZone(isUtc ? "UTC" : about?.zones[camera]);
}

export function useKeys(actions: Record<string, () => void>): void {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input:not([type=checkbox]), textarea")) return;
      // A list takes what it chooses by; letters choose none among numbers.
      if (target.closest("select") && !(target.closest("select.numbers") && /^[a-z]$/.test(event.key))) return;
      // A button or a box under the focus takes the space bar itself.
      if (event.key === " " && target.closest("button, a, summary, input")) return;
      const action = latest.current[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

/** The instant that is shown, in the zone of the camera and in UTC. */
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

/** The picture at an instant while the bar is dragged: the first of its chunk; dark where nothing is recorded. */
export function Peek({ camera, at, timeline }: { camera: string; at: number; timeline: Timeline }) {
  const known = instantOfPicture(timeline, at);
  if (known === undefined) return <div class="peek" />;
  const t = iso(known);
  return <video class="peek" src={`/preview?${new URLSearchParams({ camera, t })}`} muted playsInline preload="auto" aria-hidden="true" />;
}

/** Most rows of the table. */
const ROWS = 200;

/** What the time bar shows, to be read; `told` is the time that the timeline tells of, where what is longer is cut off. */
export function Table({ timeline, told, pick, of = "" }: { timeline: Timeline; told: View; pick: (at: number) => void; of?: string }) {
  const near = Date.now();
  const rows = [
    ...timeline.ranges.map((range) => ({ ...range, what: "recorded" })),
    ...timeline.pending.map((range) => ({ ...range, what: "recorded, not yet uploaded" })),
    ...timeline.gaps.map((gap) => ({ from: gap.from, to: gap.to, what: `gap: ${reason(gap.reason)}` })),
  ].sort((a, b) => a.from.localeCompare(b.from));
  return (
    <details>
      <summary>Recorded ranges and gaps as a table{of && `: ${of}`}</summary>
      <table>
        <thead><tr><th scope="col">From</th><th scope="col">To</th><th scope="col">Length</th><th scope="col">What</th></tr></thead>
        <tbody>
          {rows.slice(0, ROWS).map(({ from, to, what }) => {
            const [begins, ends] = [Date.parse(from), Date.parse(to)];
            const [isEarlier, isLater] = [begins <= told.from, ends >= told.to];
            return (
              <tr key={from + what}>
                <td><button type="button" class="plain" onClick={() => pick(begins)}>{moment(begins, near)}</button>{isEarlier && " or earlier"}</td>
                <td>{moment(ends, near)}{isLater && " or later"}</td>
                <td>{(isEarlier || isLater) && "at least "}{span((ends - begins) / 1000)}</td>
                <td>{what}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {rows.length > ROWS && <p class="quiet">{rows.length - ROWS} more are not shown: zoom in to see them.</p>}
    </details>
  );
}
