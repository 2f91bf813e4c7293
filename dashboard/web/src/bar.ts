// The time bar's arithmetic. Pure functions.
import type { Range, Timeline } from "./api";
import { DAY, HOUR, MINUTE } from "./time";

/** The span that the bar shows, in ms since 1970. */
export interface View { from: number; to: number }

export const SHORTEST = MINUTE;
export const LONGEST = 30 * DAY;

/** Zooms by `factor` (below 1: in) and keeps the instant `around` at its place on the bar. */
export function zoomed(view: View, factor: number, around: number): View {
  const length = view.to - view.from;
  const wanted = Math.min(LONGEST, Math.max(SHORTEST, length * factor));
  const share = (around - view.from) / length;
  const from = around - share * wanted;
  return { from, to: from + wanted };
}

/** Zooms around the instant that is shown, or around the middle of the view if that instant is outside of it. */
export function zoomedAt(view: View, factor: number, at: number): View {
  return zoomed(view, factor, at >= view.from && at <= view.to ? at : (view.from + view.to) / 2);
}

/** The longest span to request from `/api/timeline`, whose limit is 31 days. */
export const MOST = 31 * DAY;

/**
 * Returns the span to request for a view: all of it and, as far as the server's limit allows, half to a whole view on each side.
 * The ends lie on a grid, so that small moves send no new request.
 */
export function asked({ from, to }: View): View {
  const margin = Math.min(to - from, (MOST - (to - from)) / 2);
  // A power of two, so that lengths which differ by a rounding error share one grid.
  const step = 2 ** Math.floor(Math.log2(margin / 2));
  const end = Math.max(step, Math.ceil((to + margin / 2) / step) * step);
  // The server knows no times before 1970.
  return { from: Math.max(0, Math.floor((from - margin / 2) / step) * step), to: end };
}

export function moved(view: View, by: number): View {
  return { from: view.from + by, to: view.to + by };
}

/** Returns the view unchanged if the instant is in it and not in its last 5 %. Else moves it so that the instant is at one fifth. */
export function following(view: View, at: number): View {
  const length = view.to - view.from;
  if (at >= view.from && at <= view.to - length * 0.05) return view;
  return { from: at - length * 0.2, to: at + length * 0.8 };
}

/**
 * Returns the view after the playing head moved from `before` to `at`. It follows a head that was inside of it, or that has no previous position.
 * A view that the user chose (`isHeld`) stays until the head leaves it.
 */
export function carried(view: View, before: number | undefined, at: number, isHeld: boolean): View {
  const isIn = (instant: number) => instant >= view.from && instant <= view.to;
  if (before === undefined ? isHeld : !isIn(before)) return view;
  return isHeld && isIn(at) ? view : following(view, at);
}

export const instant = (view: View, share: number): number => view.from + (view.to - view.from) * share;
export const share = (view: View, at: number): number => (at - view.from) / (view.to - view.from);

/** A part of a timeline, with its times in ms since 1970. */
export interface Part { from: number; to: number }

const known = new WeakMap<readonly Range[], Part[]>();

/** Returns the ranges with parsed times, in the same order. Cached, since a bar with thousands of parts is drawn many times a second. */
export function parts(ranges: readonly Range[]): readonly Part[] {
  let read = known.get(ranges);
  if (!read) known.set(ranges, (read = ranges.map(({ from, to }) => ({ from: Date.parse(from), to: Date.parse(to) }))));
  return read;
}

/** Returns what is known of an instant. Also the text of the bar for screen readers. */
export function described(timeline: Timeline, at: number): "recorded" | "recorded, not yet uploaded" | { gap: string; until: number } | "nothing known" {
  const inside = ({ from, to }: Part) => from <= at && at < to;
  if (parts(timeline.ranges).some(inside)) return "recorded";
  if (parts(timeline.pending).some(inside)) return "recorded, not yet uploaded";
  const index = parts(timeline.gaps).findIndex(inside);
  const [gap, part] = [timeline.gaps[index], parts(timeline.gaps)[index]];
  return gap && part ? { gap: gap.reason, until: part.to } : "nothing known";
}

/** Previews are requested on a grid of this step (ms), so that the browser's cache serves most of a drag. */
const GRID = 2000;

/** Returns the instant whose preview to show for `at`; `undefined` if nothing is stored there. */
export function instantOfPicture(timeline: Timeline, at: number): number | undefined {
  const range = parts(timeline.ranges).find(({ from, to }) => from <= at && at < to);
  const onGrid = Math.floor(at / GRID) * GRID;
  return range && (onGrid >= range.from ? onGrid : at);
}

/** A range that ends at most this long (ms) after an instant counts as ending there: lengths and ends are rounded separately. */
const TOUCH = 250;

/** A time without recordings that was skipped, and the reason of its gap if known. */
export interface Skipped { at: number; until: number; reason?: string | undefined }

/** Returns the first stored instant at or after `at`. With `isBeyond`, only ranges that begin after `at` count. */
export function nextStored(timeline: Timeline, at: number, isBeyond: boolean): Skipped | undefined {
  const next = parts(timeline.ranges).find(({ from, to }) => (isBeyond ? from > at : to > at + TOUCH));
  if (!next) return undefined;
  const until = Math.max(next.from, at);
  return { at, until, reason: timeline.gaps.find(({ to }) => Math.abs(Date.parse(to) - next.from) < 1000)?.reason };
}

/** Returns the gap that reaches over the end of the requested span. A gap always has a recording after it, so the search can go on. */
export function gapOver(timeline: Timeline, end: number): Timeline["gaps"][number] | undefined {
  return timeline.gaps.find(({ to }) => Date.parse(to) >= end - 1000);
}

/** The first step of a search, ms. Up to two days the server's reasons are exact; later steps are months. */
export const NEAR = 6 * HOUR;

/** Returns the latest instant that can be shown: the present, or the end of what is stored if a camera's clock is ahead. */
export function newest(timelines: Timeline[], now: number): number {
  return timelines.flatMap(({ ranges }) => parts(ranges)).reduce((latest, { to }) => Math.max(latest, to), now);
}

/** As [`gapFrom`], for a timeline of the span `covered`. `undefined` also if `at` is outside of it: gaps in between would be missed. */
export function gapNear(timeline: Timeline, covered: View, at: number, direction: 1 | -1): number | undefined {
  return at >= covered.from && at <= covered.to ? gapFrom(timeline, at, direction, covered.from) : undefined;
}

/**
 * Returns the beginning of the next or previous gap. Skips a gap that begins at or before `edge`, where the timeline begins: that one is cut off, and
 * began earlier.
 */
export function gapFrom(timeline: Timeline, at: number, direction: 1 | -1, edge = -Infinity): number | undefined {
  const starts = parts(timeline.gaps).map(({ from }) => from).filter((start) => start > edge);
  // A jump to a gap lands 5 s before it, so the next jump must not find the same gap again.
  const margin = 2000;
  return direction > 0 ? starts.find((start) => start > at + margin + 5000) : starts.filter((start) => start < at - margin).at(-1);
}
