// Several pictures on one clock: decides what each video does at an instant. Pure functions.
import type { Place } from "./player";

/** How far a playing picture may be from the clock before the clock waits for it, ms at normal speed. */
export const OFF = 350;
/** How far a paused picture may be from the clock, ms: after a gap the first picture comes up to some frames later than its chunk begins. */
export const SETTLED = 250;
/** How long to wait for a seek before seeking again, to where the picture belongs by then, ms. */
export const SEEK_PATIENCE = 1000;
/** How long the clock waits for a late picture, ms. */
export const PATIENCE = 6000;

/** What a video must do. */
export interface Order {
  /** Seek to this position of the playlist, seconds. */
  seek?: number;
  rate: number;
  play: boolean;
}

/** Returns how far a picture may be from the clock at a speed, ms of recorded time. It grows with the speed: at 16×, 0.1 s is 1.6 s of recording. */
export const allowed = (speed: number): number => OFF * Math.max(1, speed / 3);

/** Returns how to bring a video from `time` to `wanted` (positions in the playlist, s): by another rate, or by a seek if it is far off or paused. */
export function steered(time: number, wanted: number, speed: number, runs: boolean): Order {
  const off = (time - wanted) * 1000;
  if (!runs) return Math.abs(off) > SETTLED ? { seek: wanted, rate: speed, play: false } : { rate: speed, play: false };
  // Far off: a seek takes less time than catching up.
  if (Math.abs(off) > 3 * allowed(speed)) return { seek: wanted, rate: speed, play: true };
  const correction = Math.max(-0.3, Math.min(0.3, -off / 1000 / Math.max(1, speed)));
  // Browsers accept rates from 1/16 to 16.
  const rate = Math.min(16, Math.max(0.0625, speed * (1 + correction)));
  // Less than 40 ms, one frame at 25 a second, is not corrected.
  return { rate: Math.abs(off) < 40 ? speed : rate, play: true };
}

/** Returns where to seek if one hangs at `time`: behind the hole in the buffer, since a seek into a hole never ends. `undefined` if there is none. */
export function behindHole(time: number, buffered: [number, number][]): number | undefined {
  // Sound may end some milliseconds after the pictures: such a rest of a range holds no picture.
  const next = buffered.find(([, end]) => end > time + 0.05);
  const hole = next ? next[0] - time : 0;
  // Not further than SETTLED allows: `steered` would seek back.
  return hole > 0 && hole < SETTLED / 1000 - 0.02 ? time + hole + 0.01 : undefined;
}

/** Returns whether the clock waits for a picture: one should be shown, it is not where it belongs, and it is not late for more than PATIENCE. */
export function isAwaited(place: Place["kind"], off: number | undefined, speed: number, lateFor: number): boolean {
  if (lateFor > PATIENCE) return false;
  if (place === "loading") return true;
  return place === "stored" && (off === undefined || Math.abs(off) > allowed(speed));
}

/** A camera whose newest recording is younger than this counts as recording, ms. */
export const RECENT = 120_000;
/** The least distance of a live clock to the newest recording, ms: one chunk of 10 s and a margin, so that the next chunk arrives in time. */
const BEHIND = 12_000;

/**
 * Returns the instant for a live clock, where every recording camera has a picture. `ends` are the ends of what each camera stored (ms since 1970),
 * `chunk` is the longest chunk (ms). If no camera records, the instant is near the latest end and `isLive` is false.
 */
export function liveAt(ends: number[], chunk: number, now: number): { at: number; isLive: boolean } | undefined {
  if (ends.length === 0) return undefined;
  const recording = ends.filter((end) => now - end < RECENT);
  const isLive = recording.length > 0;
  const edge = isLive ? Math.min(...recording) : Math.max(...ends);
  return { at: edge - Math.max(BEHIND, chunk + 2000), isLive };
}
