// The present by the clock of the server, which dates and judges what is stored: a viewer's own clock may be minutes off.

/** By how much the server's clock is ahead of this device's, ms. */
let ahead = 0;

/** The present, ms since 1970. For how long something takes, the device's own clock is right. */
export const now = (): number => Date.now() + ahead;

/** Learns from the `Date` of an answer, which is in whole seconds and of some moment between question and answer (ms, by the device's clock). A clock that fits is left alone. */
export function learn(date: string | null, asked: number, answered: number): void {
  const at = Date.parse(date ?? "");
  if (Number.isNaN(at)) return;
  ahead = Math.min(at + 1000 - asked, Math.max(at - answered, ahead));
}
