// The present by the server's clock, to which the times of recordings are compared. A viewer's own clock may be minutes off.

/** How far the server's clock is ahead of this device's, ms. */
let ahead = 0;

/** Returns the present, ms since 1970. To measure a duration, use the device's own clock: this one may be corrected meanwhile. */
export const now = (): number => Date.now() + ahead;

/**
 * Corrects the offset by an answer's `Date` header. `asked` and `answered` are ms by the device's clock. The server wrote the header between the two,
 * cut to whole seconds, so only a range of offsets is possible. An offset inside of that range stays as it is.
 */
export function learn(date: string | null, asked: number, answered: number): void {
  const at = Date.parse(date ?? "");
  if (Number.isNaN(at)) return;
  ahead = Math.min(at + 1000 - asked, Math.max(at - answered, ahead));
}
