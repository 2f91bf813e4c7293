// The time bar's arithmetic: what is shown where. Pure.
import type { Range, Timeline } from "./api";
import { DAY, HOUR, MINUTE } from "./time";

/** What the bar shows: instants in ms. */
export interface View { from: number; to: number }

export const SHORTEST = MINUTE;
export const LONGEST = 30 * DAY;

/** Zooms by `factor` (below 1: closer) with the instant under the pointer kept in its place. */
export function zoomed(view: View, factor: number, around: number): View {
  const length = view.to - view.from;
  const wanted = Math.min(LONGEST, Math.max(SHORTEST, length * factor));
  const share = (around - view.from) / length;
  const from = around - share * wanted;
  return { from, to: from + wanted };
}

/** Zooms around the instant that is shown, and around the middle of a view that does not hold it. */
export function zoomedAt(view: View, factor: number, at: number): View {
  return zoomed(view, factor, at >= view.from && at <= view.to ? at : (view.from + view.to) / 2);
}

/** The longest time that the server tells of at once. */
export const MOST = 31 * DAY;

/** What is asked for to show a view: all of it and, as far as the server's limit allows, a half to a whole view on each side, on a grid, so that moving a little asks for nothing new. */
export function asked({ from, to }: View): View {
  const margin = Math.min(to - from, (MOST - (to - from)) / 2);
  // A power of two: lengths that differ by a rounding have the same grid.
  const step = 2 ** Math.floor(Math.log2(margin / 2));
  const end = Math.max(step, Math.ceil((to + margin / 2) / step) * step);
  // Nothing is before 1970.
  return { from: Math.max(0, Math.floor((from - margin / 2) / step) * step), to: end };
}

export function moved(view: View, by: number): View {
  return { from: view.from + by, to: view.to + by };
}

/** Moves the view as little as needed for the instant to be in it, with some room ahead. */
export function following(view: View, at: number): View {
  const length = view.to - view.from;
  if (at >= view.from && at <= view.to - length * 0.05) return view;
  return { from: at - length * 0.2, to: at + length * 0.8 };
}

/** The view while the head goes from `before` to `at`: it follows a head that was in it, and one that comes from nowhere. One that the user chose (`isHeld`) stays until the head leaves it. */
export function carried(view: View, before: number | undefined, at: number, isHeld: boolean): View {
  const isIn = (instant: number) => instant >= view.from && instant <= view.to;
  if (before === undefined ? isHeld : !isIn(before)) return view;
  return isHeld && isIn(at) ? view : following(view, at);
}

export const instant = (view: View, share: number): number => view.from + (view.to - view.from) * share;
export const share = (view: View, at: number): number => (at - view.from) / (view.to - view.from);

/** A part of a timeline, with its times in ms. */
export interface Part { from: number; to: number }

const known = new WeakMap<readonly Range[], Part[]>();

/** The times of an answer's parts, in their order: read once, since a bar of thousands is drawn many times a second. */
export function parts(ranges: readonly Range[]): readonly Part[] {
  let read = known.get(ranges);
  if (!read) known.set(ranges, (read = ranges.map(({ from, to }) => ({ from: Date.parse(from), to: Date.parse(to) }))));
  return read;
}

/** What is known of an instant, in words for who does not see the bar. */
export function described(timeline: Timeline, at: number): "recorded" | "recorded, not yet uploaded" | { gap: string; until: number } | "nothing known" {
  const inside = ({ from, to }: Part) => from <= at && at < to;
  if (parts(timeline.ranges).some(inside)) return "recorded";
  if (parts(timeline.pending).some(inside)) return "recorded, not yet uploaded";
  const index = parts(timeline.gaps).findIndex(inside);
  const [gap, part] = [timeline.gaps[index], parts(timeline.gaps)[index]];
  return gap && part ? { gap: gap.reason, until: part.to } : "nothing known";
}

/** Pictures are asked for on a grid of this step (ms), so that the browser's cache serves most of a drag. */
const GRID = 2000;

/** The instant whose picture stands for `at`; undefined where nothing is stored. */
export function instantOfPicture(timeline: Timeline, at: number): number | undefined {
  const range = parts(timeline.ranges).find(({ from, to }) => from <= at && at < to);
  const onGrid = Math.floor(at / GRID) * GRID;
  return range && (onGrid >= range.from ? onGrid : at);
}

/** What ends this little (ms) after an instant ends there: lengths and ends are rounded each by themselves. */
const TOUCH = 250;

/** A stretch without recordings that was skipped, and why it is there. */
export interface Skipped { at: number; until: number; reason?: string | undefined }

/** The first instant from `at` on of which something is stored; with `isBeyond` of what begins later. */
export function nextStored(timeline: Timeline, at: number, isBeyond: boolean): Skipped | undefined {
  const next = parts(timeline.ranges).find(({ from, to }) => (isBeyond ? from > at : to > at + TOUCH));
  if (!next) return undefined;
  const until = Math.max(next.from, at);
  return { at, until, reason: timeline.gaps.find(({ to }) => Math.abs(Date.parse(to) - next.from) < 1000)?.reason };
}

/** The gap that reaches over the end of what was asked for: something follows it. */
export function gapOver(timeline: Timeline, end: number): Timeline["gaps"][number] | undefined {
  return timeline.gaps.find(({ to }) => Date.parse(to) >= end - 1000);
}

/** How far a search looks at each step, ms: near, where reasons are exact, then by months. */
export const NEAR = 6 * HOUR;

/** The end of what is known to be stored, or the present: going on from there is going into the future. A camera's clock may be ahead. */
export function newest(timelines: Timeline[], now: number): number {
  return timelines.flatMap(({ ranges }) => parts(ranges)).reduce((latest, { to }) => Math.max(latest, to), now);
}

/** As [`gapFrom`], of a timeline that tells of the time `covered`: undefined, too, where the instant lies outside, and gaps between are not known. */
export function gapNear(timeline: Timeline, covered: View, at: number, direction: 1 | -1): number | undefined {
  return at >= covered.from && at <= covered.to ? gapFrom(timeline, at, direction, covered.from) : undefined;
}

/** The beginning of the next or previous gap. One that reaches over `edge`, where the timeline begins, began earlier. */
export function gapFrom(timeline: Timeline, at: number, direction: 1 | -1, edge = -Infinity): number | undefined {
  const starts = parts(timeline.gaps).map(({ from }) => from).filter((start) => start > edge);
  const margin = 2000;
  return direction > 0 ? starts.find((start) => start > at + margin + 5000) : starts.filter((start) => start < at - margin).at(-1);
}
