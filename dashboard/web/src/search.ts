// Searches beyond the loaded window: where recordings go on, and where gaps are.
import { type Timeline, get } from "./api";
import { MOST, NEAR, type Skipped, gapFrom, gapOver, nextStored } from "./bar";
import { now } from "./now";
import { DAY, iso } from "./time";

/** How many months a search for recordings looks ahead. */
const MONTHS = 13;

const timeline = (camera: string, from: number, to: number): Promise<Timeline> =>
  get<Timeline>("/api/timeline", { camera, from: iso(Math.max(0, from)), to: iso(to) });

/** Returns the first stored instant at or after `at`, as [`nextStored`]; `undefined` if nothing follows. */
export async function lookOn(camera: string, at: number, isBeyond: boolean): Promise<Skipped | undefined> {
  let [from, step, reason] = [at, NEAR, undefined as string | undefined];
  for (let month = 0; month <= MONTHS && from < now() + DAY; month++) {
    const known = await timeline(camera, from, from + step);
    // Months are put together from object names, which have the begin of a chunk but not its end. Accept only what begins after `at`.
    const next = nextStored(known, at, isBeyond || month > 0);
    if (next) return { ...next, reason: reason ?? next.reason };
    const over = gapOver(known, from + step);
    // The reason of the first step is from metadata; that of a month may not be.
    reason ??= over?.reason;
    if (month > 0) {
      // A gap ends with a recording. If none reaches over the end, nothing follows.
      if (!over) return undefined;
      from += step;
    }
    step = MOST;
  }
  return undefined;
}

/** Returns the beginning of the next or previous gap within a month. Begins with short spans, which cost the server less. */
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
