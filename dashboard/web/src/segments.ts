// The segments of a playlist, by the player's time and by the camera's clock. That clock may be set back between two segments, so `at` need not
// increase. Pure functions.

/** A segment of the playlist: its `start` and `duration` in the player's time (s), and the instant `at` which it begins (ms since 1970). */
export interface Segment { start: number; duration: number; at: number }

/** Returns the instant at which a segment ends, by the camera's clock, ms since 1970. */
export const ends = ({ at, duration }: Segment): number => at + duration * 1000;

/** Returns the segment that holds an instant, else the one that begins next after it; `undefined` if all end before it. */
export function segmentAt(segments: Segment[], at: number): Segment | undefined {
  const held = segments.find((segment) => segment.at <= at && at < ends(segment));
  if (held) return held;
  const later = segments.filter((segment) => at < segment.at);
  return later.reduce<Segment | undefined>((first, segment) => (first && first.at <= segment.at ? first : segment), undefined);
}

/** Returns the latest end of all segments, ms since 1970. After a clock was set back, that is not the end of the last one. */
export function latestEnd(segments: Segment[]): number | undefined {
  return segments.length > 0 ? Math.max(...segments.map(ends)) : undefined;
}
