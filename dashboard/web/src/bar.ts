// The time bar's arithmetic: what is shown where. Pure.
import type { Timeline } from "./api";
import { DAY, MINUTE } from "./time";

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

/** The longest time that the server tells of at once. */
export const MOST = 31 * DAY;

/** What is asked for to show a view: all of it and, as far as the server's limit allows, a half to a whole view on each side, on a grid, so that moving a little asks for nothing new. */
export function asked({ from, to }: View): View {
  const margin = Math.min(to - from, (MOST - (to - from)) / 2);
  // A power of two: lengths that differ by a rounding have the same grid.
  const step = 2 ** Math.floor(Math.log2(margin / 2));
  return { from: Math.floor((from - margin / 2) / step) * step, to: Math.ceil((to + margin / 2) / step) * step };
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

export const instant = (view: View, share: number): number => view.from + (view.to - view.from) * share;
export const share = (view: View, at: number): number => (at - view.from) / (view.to - view.from);

/** What is known of an instant, in words for who does not see the bar. */
export function described(timeline: Timeline, at: number): "recorded" | "recorded, not yet uploaded" | { gap: string; until: number } | "nothing known" {
  const inside = (part: { from: string; to: string }) => Date.parse(part.from) <= at && at < Date.parse(part.to);
  if (timeline.ranges.some(inside)) return "recorded";
  if (timeline.pending.some(inside)) return "recorded, not yet uploaded";
  const gap = timeline.gaps.find(inside);
  return gap ? { gap: gap.reason, until: Date.parse(gap.to) } : "nothing known";
}

/** The beginning of the next or previous gap. */
export function gapFrom(timeline: Timeline, at: number, direction: 1 | -1): number | undefined {
  const starts = timeline.gaps.map((gap) => Date.parse(gap.from));
  const margin = 2000;
  return direction > 0 ? starts.find((start) => start > at + margin + 5000) : starts.filter((start) => start < at - margin).at(-1);
}
