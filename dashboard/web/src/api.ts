// The JSON API of the server, as docs/dashboard.md describes it.
import { learn } from "./now";

/** How long to wait before repeating a failed request, ms. */
export const AGAIN = 5000;
/** The server's error text for a known camera that has stored nothing. Compared with, so it must match the server's. */
export const NEVER = "nothing is stored of this camera yet";

export type Badge = "recording" | "late" | "camera-lost" | "not-recording" | "offline" | "unknown" | "never-seen" | "stopped";

export interface Camera {
  id: string;
  name: string;
  badge: Badge;
  reason: string;
  last_stored: string | null;
  age_s: number | null;
  backlog_s: number | null;
  missing_s_today: number | null;
}

export interface Range { from: string; to: string }
export interface Gap extends Range { reason: string }
export interface CameraGap extends Gap { camera: string }
export interface Timeline { ranges: Range[]; gaps: Gap[]; /** Recorded and not yet uploaded, as the camera reports by MQTT. */ pending: Range[] }
export interface Day { day: string; recorded_s: number; gap_s: number }
export interface About { delivery: "proxy" | "redirect"; bucket: string; list_requests: number; since: string; version: string; /** Time zones by camera id, of cameras in `--cameras` lists only. */ zones: Record<string, string> }

/** A request that failed: what happened, and what to do. `status` is 0 if there was no HTTP answer. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string, readonly hint: string) {
    super(message);
  }
}

/** Returns whether the same request would fail again: it was refused, or there is nothing to return. */
export const isFinal = (status: number): boolean => status === 400 || status === 401 || status === 404 || status === 415;

/** Error text when the dashboard, or the network to it, does not answer. */
export const UNANSWERED = "the dashboard does not answer";
/** Error text for an answer that is not from the dashboard, such as a proxy's login or error page. */
export const FOREIGN = "something in front of the dashboard answered; reload the page";

export const unanswered = (): ApiError => new ApiError(0, UNANSWERED, "Is it running, and is this device on the network?");

/** Returns whether the page itself aborted the request, or its time limit did. */
const isGivenUp = (error: unknown): boolean => error instanceof DOMException && (error.name === "AbortError" || error.name === "TimeoutError");

/** Waits for the answer, and learns the server's clock from it. Replaces the browser's network errors by a text for people; aborts pass through. */
export async function answered(request: Promise<Response>): Promise<Response> {
  const asked = Date.now();
  try {
    const response = await request;
    learn(response.headers.get("date"), asked, Date.now());
    return response;
  } catch (error) {
    throw isGivenUp(error) ? error : unanswered();
  }
}

/** Reads the error from an unsuccessful answer. */
export async function failure(response: Response): Promise<ApiError> {
  try {
    const { error, hint } = await response.json();
    return new ApiError(response.status, String(error), String(hint ?? ""));
  } catch (error) {
    if (isGivenUp(error)) throw error;
    return new ApiError(response.status, `the server answered ${response.status}`, "");
  }
}

/** Reads a successful answer as JSON. */
export async function content<T>(response: Response): Promise<T> {
  try {
    return await response.json();
  } catch (error) {
    if (isGivenUp(error)) throw error;
    throw error instanceof SyntaxError ? new ApiError(response.status, FOREIGN, "") : unanswered();
  }
}

/** Marks the request of a script. Once a session has ended, Identity-Aware Proxy answers it with 401, not with a redirect to its login. */
export const BY_SCRIPT = { "X-Requested-With": "XMLHttpRequest" };

export async function get<T>(path: string, query: Record<string, string> = {}, signal?: AbortSignal): Promise<T> {
  const text = new URLSearchParams(query).toString();
  const response = await answered(fetch(text ? `${path}?${text}` : path, { signal: signal ?? null, headers: BY_SCRIPT }));
  if (!response.ok) throw await failure(response);
  return content(response);
}

/**
 * Returns what is needed to enter: nothing, a token, or a login elsewhere. Behind Identity-Aware Proxy no token helps: its session has ended, and
 * the page must be reloaded.
 */
export async function neededToEnter(): Promise<"" | "token" | "elsewhere"> {
  // If the proxy redirects to its own login, fetch fails: the answer of another origin cannot be read.
  const response = await fetch("/api/about", { headers: BY_SCRIPT }).catch(() => undefined);
  if (response?.ok) return "";
  return response?.headers.get("www-authenticate")?.startsWith("Bearer") ? "token" : "elsewhere";
}

export async function logIn(token: string): Promise<void> {
  const response = await answered(fetch("/login", { method: "POST", body: JSON.stringify({ token }) }));
  if (!response.ok) throw await failure(response);
  // Over plain http a browser silently drops a Secure cookie, so ask whether the login is kept.
  if ((await neededToEnter()) === "token") throw new ApiError(401, `this browser did not keep the login: ${location.protocol === "https:" ? "allow the cookies of this address" : "open the dashboard by https"}`, "");
}
