// Reads playlists, and the server's errors to the player's requests.
import { ApiError, BY_SCRIPT, FOREIGN, UNANSWERED, answered, failure } from "./api";
import type { Segment } from "./segments";

/** Returns the codecs of a type such as "video/mp4;codecs=hvc1.1.6.L93.B0" that this browser does not play; empty if that is unknown. */
export function unplayable(type: string | undefined): string[] {
  const [container, list = ""] = (type ?? "").split(/;\s*codecs=/);
  const names = list.replaceAll('"', "").split(",").filter((name) => name !== "");
  // iPhones have ManagedMediaSource instead.
  if (typeof MediaSource === "undefined") return [];
  return names.filter((name) => !MediaSource.isTypeSupported(`${container};codecs=${name}`));
}

/** Adds the header to playlist requests only: for media that are redirected to the bucket, its CORS rules would have to allow the header. */
export const byScript = (request: XMLHttpRequest, url: string): void => {
  if (!new URL(url, location.href).pathname.endsWith(".m3u8")) return;
  // A header can only be set after open(). hls.js then does not open the request again.
  if (request.readyState === 0) request.open("GET", url, true);
  for (const [name, value] of Object.entries(BY_SCRIPT)) request.setRequestHeader(name, value);
};

/** Reads the segments of a playlist, for browsers that play HLS natively. */
export async function read(address: string): Promise<Segment[]> {
  const response = await answered(fetch(address, { headers: BY_SCRIPT }));
  if (!response.ok) throw await failure(response);
  const text = await response.text();
  if (!text.startsWith("#EXTM3U")) throw new ApiError(response.status, FOREIGN, "");
  const segments: Segment[] = [];
  let [start, at] = [0, NaN];
  for (const line of text.split("\n")) {
    const [name, value = ""] = line.split(/:(.*)/);
    if (name === "#EXT-X-PROGRAM-DATE-TIME") at = Date.parse(value);
    if (name !== "#EXTINF") continue;
    const duration = Number.parseFloat(value);
    segments.push({ start, duration, at });
    start += duration;
  }
  return segments;
}

export const segment = (fragment: { start: number; duration: number; programDateTime: number | null }): Segment => ({
  start: fragment.start, duration: fragment.duration, at: fragment.programDateTime ?? NaN,
});

/** Returns the server's error text of a failed request, if it has one. */
export function serverReason(request: unknown): string | undefined {
  try {
    const { response } = request as XMLHttpRequest;
    // hls.js requests media as bytes and playlists as text.
    return String(JSON.parse(response instanceof ArrayBuffer ? new TextDecoder().decode(response) : response).error);
  } catch {
    return undefined;
  }
}

/** Returns the error for a failed request of hls.js; `details` is that of its error event. */
export function lack(status: number, request: unknown, details: string): ApiError {
  if (details === "manifestParsingError") return new ApiError(status, FOREIGN, "");
  return new ApiError(status, serverReason(request) ?? (status > 0 ? `it cannot be loaded (${details})` : UNANSWERED), "");
}
