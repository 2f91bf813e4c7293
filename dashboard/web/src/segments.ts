// The segments of a playlist, in the player's time and by the camera's clock, which may have been set back between two of them. Pure.

/** A segment of the playlist: where it lies in the player's time (s), and the instant at which it begins (ms). */
export interface Segment { start: number; duration: number; at: number }

/** When a segment ends by the camera's clock, ms. */
export const ends = ({ at, duration }: Segment): number => at + duration * 1000;

/** The segment that holds an instant, else the one that begins next behind it; undefined: all end before. */
export function segmentAt(segments: Segment[], at: number): Segment | undefined {
  const held = segments.find((segment) => segment.at <= at && at < ends(segment));
  if (held) return held;
  const later = segments.filter((segment) => at < segment.at);
  return later.reduce<Segment | undefined>((first, segment) => (first && first.at <= segment.at ? first : segment), undefined);
}

/** The latest end of all segments, ms: behind a clock that was set back it is not that of the last one. */
export function latestEnd(segments: Segment[]): number | undefined {
  return segments.length > 0 ? Math.max(...segments.map(ends)) : undefined;
}
