// Times as people read them. Instants are milliseconds since 1970 everywhere in the page.
import { now } from "./now";

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** The last instant that can be shown, ms: the server's times end in 2554. */
const LATEST = Date.UTC(2554, 0, 1);

/** Parses the time of an address, and limits it to what the server supports; `null` if it is not a time. */
export function askedFor(text: string): number | null {
  // In a query an unescaped `+` is read as a space: restore that of a zone offset.
  const at = Date.parse(text.replace(/ (?=\d\d:?\d\d$)/, "+"));
  return Number.isNaN(at) ? null : Math.min(LATEST, Math.max(0, at));
}

let asked: string | undefined;
let shown: string | undefined;

/** Returns the zone that times are shown in: the one of [`setZone`], else the browser's. */
export const zone = (): string => shown ?? (Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC");

/** Sets the zone that times are shown in. `undefined`, or a zone that the browser does not know, selects the browser's. */
export function setZone(name: string | undefined): void {
  if (name === asked) return;
  asked = name;
  shown = name !== undefined && isKnown(name) ? name : undefined;
  formats.clear();
}

/** Returns the camera's zone if the browser does not know it and shows its own. Some system names are not IANA zones (`localtime`). */
export const unknownZone = (): string | undefined => (asked === shown ? undefined : asked);

function isKnown(name: string): boolean {
  try {
    new Intl.DateTimeFormat(undefined, { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

const formats = new Map<string, Intl.DateTimeFormat>();

function format(key: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  let known = formats.get(key);
  if (!known) formats.set(key, (known = new Intl.DateTimeFormat(undefined, { hourCycle: "h23", calendar: "gregory", timeZone: zone(), ...options })));
  return known;
}

export const clock = (at: number): string => format("clock", { hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(at);
export const hourMinute = (at: number): string => format("hm", { hour: "2-digit", minute: "2-digit" }).format(at);
export const date = (at: number): string => format("date", { weekday: "short", day: "numeric", month: "short", year: "numeric" }).format(at);
export const shortDate = (at: number): string => format("short", { day: "numeric", month: "short" }).format(at);

/** Returns the name of a month (2026-11), with its year if `withYear`. */
export function monthName(month: string, withYear: boolean): string {
  // Months are Gregorian. In a browser's other calendar one of them spans two months.
  const options: Intl.DateTimeFormatOptions = { calendar: "gregory", timeZone: "UTC", month: "long" };
  if (withYear) options.year = "numeric";
  return new Intl.DateTimeFormat(undefined, options).format(Date.parse(`${month}-01T00:00:00Z`));
}

/** Returns the time of day, with the date unless it is that of `near`. */
export const moment = (at: number, near: number): string => (dayOf(at) === dayOf(near) ? clock(at) : `${clock(at)}, ${date(at)}`);

/** Replaces the RFC 3339 times in a text of the server by times of day in the shown zone. */
export function readable(text: string): string {
  return text.replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z/g, (instant) => moment(Date.parse(instant), now()));
}

/** Formats a duration: 75 s as "1 min 15 s". */
export function span(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 && s < 600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.round(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const iso = (at: number): string => new Date(at).toISOString();

/** Returns the zone's offset from UTC at an instant, ms. East is positive. */
function ahead(at: number): number {
  const options = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" } as const;
  const parts = Object.fromEntries(format("parts", { ...options, numberingSystem: "latn" }).formatToParts(at).map(({ type, value }) => [type, Number(value)]));
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(at / SECOND) * SECOND;
}

/** Returns the day of `at` in the zone, e.g. 2026-11-22. */
export const dayOf = (at: number): string => new Date(at + ahead(at)).toISOString().slice(0, 10);

/** Returns the instant at which a day begins in the zone. */
export function dayBegins(day: string): number {
  const utc = Date.parse(`${day}T00:00:00Z`);
  // The offset may change on that day, and is known only for an instant: take the offset at a first guess to make the second.
  const guess = utc - ahead(utc);
  const begins = utc - ahead(guess);
  // If the clock is set from 0:00 to 1:00, the day begins at 1:00.
  return dayOf(begins) === day ? begins : Math.max(guess, begins);
}

/** Returns the next day. */
export const dayAfter = (day: string): string => new Date(Date.parse(`${day}T00:00:00Z`) + DAY).toISOString().slice(0, 10);

/** Returns the instant at which the day of `at` begins in the zone. */
export const midnight = (at: number): number => dayBegins(dayOf(at));

/** Returns the shortest usual step of the axis, ms, that divides `length` (ms) into at most ten parts; 10 days if none does. */
export function axisStep(length: number): number {
  const steps = [5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000].map((s) => s * SECOND);
  return steps.find((step) => length / step <= 10) ?? 10 * DAY;
}

/** Returns the marks of the axis: every `step` ms counted from each midnight or, for steps of n days, every n-th midnight. */
export function marks(from: number, to: number, step: number): number[] {
  const found: number[] = [];
  for (let day = dayOf(from), begins = dayBegins(day); begins <= to; ) {
    const next = dayAfter(day);
    const ends = dayBegins(next);
    if (step >= DAY) {
      if (begins >= from && (Date.parse(`${day}T00:00:00Z`) / DAY) % (step / DAY) === 0) found.push(begins);
    } else {
      // A day of 25 hours may put its last mark right before the next midnight: leave out a mark less than half a step from it.
      for (let at = begins + Math.max(0, Math.ceil((from - begins) / step)) * step; at <= to && (at === begins || at <= ends - step / 2); at += step) found.push(at);
    }
    [day, begins] = [next, ends];
  }
  return found;
}
