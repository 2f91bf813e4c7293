// Several pictures on one clock: what each does at an instant. Pure.
import type { Place } from "./player";

/** How far a picture may be off the clock before the clock waits for it, ms at normal speed. */
export const OFF = 350;
/** How far a picture that stands may be off the clock, ms: behind a gap the first one is up to some frames later than its chunk. */
export const SETTLED = 250;
/** How long a seek is waited for before the picture is put where it belongs by now, ms. */
export const SEEK_PATIENCE = 1000;
/** How long the clock waits for a picture that does not come, ms. */
export const PATIENCE = 6000;

/** What a video is to do. */
export interface Order {
  /** Go to this place of the playlist, seconds. */
  seek?: number;
  rate: number;
  play: boolean;
}

/** How far a picture may be off at a speed, ms of recorded time: at 16× a tenth of a second is 1.6 s. */
export const allowed = (speed: number): number => OFF * Math.max(1, speed / 3);

/** A picture stands at `time` of the playlist (s) and belongs to `wanted`: it is let catch up, or put there. */
export function steered(time: number, wanted: number, speed: number, runs: boolean): Order {
  const off = (time - wanted) * 1000;
  if (!runs) return Math.abs(off) > SETTLED ? { seek: wanted, rate: speed, play: false } : { rate: speed, play: false };
  // Far behind or ahead: a jump is over sooner than a chase.
  if (Math.abs(off) > 3 * allowed(speed)) return { seek: wanted, rate: speed, play: true };
  const correction = Math.max(-0.3, Math.min(0.3, -off / 1000 / Math.max(1, speed)));
  // A browser takes rates from 1/16 to 16.
  const rate = Math.min(16, Math.max(0.0625, speed * (1 + correction)));
  return { rate: Math.abs(off) < 40 ? speed : rate, play: true };
}

/** Where a seek that hangs at `time` is to go: behind the hole there, since a seek into one never ends. */
export function behindHole(time: number, buffered: [number, number][]): number | undefined {
  // Sound may go on some milliseconds longer than the pictures, which are none there either.
  const next = buffered.find(([, end]) => end > time + 0.05);
  const hole = next ? next[0] - time : 0;
  // Not further than what counts as being there: it would be put back.
  return hole > 0 && hole < SETTLED / 1000 - 0.02 ? time + hole + 0.01 : undefined;
}

/** Whether the clock waits for a picture: it should be seen, is not where it belongs, and has not been waited for too long. */
export function isAwaited(place: Place["kind"], off: number | undefined, speed: number, lateFor: number): boolean {
  if (lateFor > PATIENCE) return false;
  if (place === "loading") return true;
  return place === "stored" && (off === undefined || Math.abs(off) > allowed(speed));
}

/** A camera whose newest recording is younger is recording, ms. */
export const RECENT = 120_000;
/** How far behind the newest recording the clock goes live at least, ms: a chunk of ten seconds, and the next one is there in time. */
const BEHIND = 12_000;

/** Where the clock goes live, by the ends (ms) of what is stored of each camera and the length of their chunks: all that record have a picture there. */
export function liveAt(ends: number[], chunk: number, now: number): { at: number; isLive: boolean } | undefined {
  if (ends.length === 0) return undefined;
  const recording = ends.filter((end) => now - end < RECENT);
  const isLive = recording.length > 0;
  const edge = isLive ? Math.min(...recording) : Math.max(...ends);
  return { at: edge - Math.max(BEHIND, chunk + 2000), isLive };
}
