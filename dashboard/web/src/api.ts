// The JSON API of the server, as docs/dashboard.md describes it.
import { learn } from "./now";

/** How long to wait before what failed is asked for again, ms. */
export const AGAIN = 5000;
/** What the server says of a camera that is known and has stored nothing. */
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
export interface Timeline { ranges: Range[]; gaps: Gap[]; /** Recorded, not yet uploaded, as the camera reports by MQTT. */ pending: Range[] }
export interface Day { day: string; recorded_s: number; gap_s: number }
export interface About { delivery: "proxy" | "redirect"; bucket: string; list_requests: number; since: string; version: string; /** Of the cameras of lists. */ zones: Record<string, string> }

/** An answer that is no success: what happened, and what to do. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string, readonly hint: string) {
    super(message);
  }
}

/** What is not answered otherwise when it is asked for again: refused, or nothing there. */
export const isFinal = (status: number): boolean => status === 400 || status === 401 || status === 404 || status === 415;

/** What is said where the dashboard, or the network to it, does not answer. */
export const UNANSWERED = "the dashboard does not answer";
/** What is said of an answer that is none of the dashboard's: a login page, an error page. */
export const FOREIGN = "something in front of the dashboard answered; reload the page";

export const unanswered = (): ApiError => new ApiError(0, UNANSWERED, "Is it running, and is this device on the network?");

/** Given up by the page itself. */
const isGivenUp = (error: unknown): boolean => error instanceof DOMException && (error.name === "AbortError" || error.name === "TimeoutError");

/** The answer to a request; one that never comes is told in words, and not in those of the browser. */
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

/** Reads an answer that is no success. */
export async function failure(response: Response): Promise<ApiError> {
  try {
    const { error, hint } = await response.json();
    return new ApiError(response.status, String(error), String(hint ?? ""));
  } catch (error) {
    if (isGivenUp(error)) throw error;
    return new ApiError(response.status, `the server answered ${response.status}`, "");
  }
}

/** Reads an answer that is a success. */
export async function content<T>(response: Response): Promise<T> {
  try {
    return await response.json();
  } catch (error) {
    if (isGivenUp(error)) throw error;
    throw error instanceof SyntaxError ? new ApiError(response.status, FOREIGN, "") : unanswered();
  }
}

/** By it Identity-Aware Proxy tells a question of a script, which it answers with 401 and not with its own login, once a session has ended. */
export const BY_SCRIPT = { "X-Requested-With": "XMLHttpRequest" };

export async function get<T>(path: string, query: Record<string, string> = {}, signal?: AbortSignal): Promise<T> {
  const text = new URLSearchParams(query).toString();
  const response = await answered(fetch(text ? `${path}?${text}` : path, { signal: signal ?? null, headers: BY_SCRIPT }));
  if (!response.ok) throw await failure(response);
  return content(response);
}

/** What lets in: nothing is needed, a token, or what no token helps with. Behind Identity-Aware Proxy none does: its session ended, and the page has to be loaded anew. */
export async function neededToEnter(): Promise<"" | "token" | "elsewhere"> {
  // Where the proxy answers with a redirect to its own login, nothing can be read.
  const response = await fetch("/api/about", { headers: BY_SCRIPT }).catch(() => undefined);
  if (response?.ok) return "";
  return response?.headers.get("www-authenticate")?.startsWith("Bearer") ? "token" : "elsewhere";
}

export async function logIn(token: string): Promise<void> {
  const response = await answered(fetch("/login", { method: "POST", body: JSON.stringify({ token }) }));
  if (!response.ok) throw await failure(response);
  // A cookie that is for https alone is dropped without a word where the page came without it.
  if ((await neededToEnter()) === "token") throw new ApiError(401, `this browser did not keep the login: ${location.protocol === "https:" ? "allow the cookies of this address" : "open the dashboard by https"}`, "");
}
