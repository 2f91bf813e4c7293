// Times for people. Instants are milliseconds since 1970 everywhere in the page.

export const SECOND = 1000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

export const zone = (): string => Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

const formats = new Map<string, Intl.DateTimeFormat>();

function format(key: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  let known = formats.get(key);
  if (!known) formats.set(key, (known = new Intl.DateTimeFormat(undefined, { hourCycle: "h23", ...options })));
  return known;
}

export const clock = (at: number): string => format("clock", { hour: "2-digit", minute: "2-digit", second: "2-digit" }).format(at);
export const hourMinute = (at: number): string => format("hm", { hour: "2-digit", minute: "2-digit" }).format(at);
export const date = (at: number): string => format("date", { weekday: "short", day: "numeric", month: "short", year: "numeric" }).format(at);
export const shortDate = (at: number): string => format("short", { day: "numeric", month: "short" }).format(at);

/** 75 s as "1 min 15 s". */
export function span(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 && s < 600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.round(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

export const iso = (at: number): string => new Date(at).toISOString();

/** Midnight of the day of `at`, in the browser's zone. */
export function midnight(at: number): number {
  const day = new Date(at);
  day.setHours(0, 0, 0, 0);
  return day.getTime();
}

/** Steps of the axis that leave between 4 and 12 marks. */
export function axisStep(length: number): number {
  const steps = [5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000].map((s) => s * SECOND);
  return steps.find((step) => length / step <= 10) ?? 10 * DAY;
}
