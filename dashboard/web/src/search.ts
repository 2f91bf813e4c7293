// Looks for what lies beyond the loaded window: where recordings go on, where gaps are.
import { type Timeline, get } from "./api";
import { MOST, NEAR, type Skipped, gapFrom, gapOver, nextStored } from "./bar";
import { now } from "./now";
import { DAY, iso } from "./time";

/** How many months a search for recordings looks on. */
const MONTHS = 13;

const timeline = (camera: string, from: number, to: number): Promise<Timeline> =>
  get<Timeline>("/api/timeline", { camera, from: iso(Math.max(0, from)), to: iso(to) });

/** The first instant from `at` on of which something is stored (see [`nextStored`]); `undefined`: nothing follows. */
export async function lookOn(camera: string, at: number, isBeyond: boolean): Promise<Skipped | undefined> {
  let [from, step, reason] = [at, NEAR, undefined as string | undefined];
  for (let month = 0; month <= MONTHS && from < now() + DAY; month++) {
    const known = await timeline(camera, from, from + step);
    // Names tell when chunks begin; where one ends is a guess.
    const next = nextStored(known, at, isBeyond || month > 0);
    if (next) return { ...next, reason: reason ?? next.reason };
    const over = gapOver(known, from + step);
    // The edge of the first one is told by metadata; months know names alone.
    reason ??= over?.reason;
    if (month > 0) {
      if (!over) return undefined;
      from += step;
    }
    step = MOST;
  }
  return undefined;
}

/** The beginning of the next or previous gap within a month. */
export async function lookForGap(camera: string, at: number, direction: 1 | -1): Promise<number | undefined> {
  for (const reach of [NEAR, 2 * DAY, MOST]) {
    const from = Math.max(0, direction > 0 ? at : at - reach);
    const to = direction > 0 ? at + reach : at;
    if (to <= from || from > now() + DAY) return undefined;
    const start = gapFrom(await timeline(camera, from, to), at, direction, from);
    if (start !== undefined) return start;
  }
  return undefined;
}
