// What the screens of one camera and of several share: timelines, keys, the picture under the pointer, the table.
import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { AGAIN, ApiError, type Timeline, get } from "./api";
import { type Skipped, type View, asked, described, instantOfPicture } from "./bar";
import { askForToken } from "./login";
import { clock, date, iso, span, zone } from "./time";
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

/** Says what cannot be shown, and why. */
export function Fault({ what, fault }: { what: string; fault: string }) {
  return fault ? <p class="trouble" role="alert">{what} cannot be shown: {fault}</p> : null;
}

/** What is stored of each camera in the view and around it; asked for when the view rests. */
export function useTimelines(cameras: string[], view: View, now: number): { timelines: Timeline[]; /** Where they begin. */ edge: number; fault: string } {
  const { from, to } = asked(view);
  const news = view.to > now ? now : 0;
  const key = JSON.stringify([cameras, from, to, news]);
  const ask = async (signal: AbortSignal) => ({
    edge: from,
    timelines: await Promise.all(cameras.map((camera) => get<Timeline>("/api/timeline", { camera, from: iso(from), to: iso(to) }, signal))),
  });
  // What cannot be read now stays as it was known.
  const { answer, fault } = useAnswer(key, ask, true, 120);
  return { timelines: answer?.timelines ?? [], edge: answer?.edge ?? from, fault };
}

export function useKeys(actions: Record<string, () => void>): void {
  const latest = useRef(actions);
  latest.current = actions;
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input:not([type=checkbox]), select, textarea")) return;
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
      <span class="quiet"> {zone()}{zone() !== "UTC" && ` · ${iso(at).slice(11, 19)} UTC`}</span>
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

export function Table({ timeline, pick, of = "" }: { timeline: Timeline; pick: (at: number) => void; of?: string }) {
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
          {rows.slice(0, 200).map(({ from, to, what }) => (
            <tr key={from + what}>
              <td><button type="button" class="plain" onClick={() => pick(Date.parse(from))}>{clock(Date.parse(from))}</button></td>
              <td>{clock(Date.parse(to))}</td>
              <td>{span((Date.parse(to) - Date.parse(from)) / 1000)}</td>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
