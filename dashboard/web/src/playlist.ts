// What a playlist and the answers to a player's requests say.
import { ApiError, BY_SCRIPT, FOREIGN, UNANSWERED, answered, failure } from "./api";
import type { Segment } from "./segments";

/** What of the media a browser does not play, of a type as "video/mp4;codecs=hvc1.1.6.L93.B0"; empty if it does not tell. */
export function unplayable(type: string | undefined): string[] {
  const [container, list = ""] = (type ?? "").split(/;\s*codecs=/);
  const names = list.replaceAll('"', "").split(",").filter((name) => name !== "");
  // Phones of Apple have another one.
  if (typeof MediaSource === "undefined") return [];
  return names.filter((name) => !MediaSource.isTypeSupported(`${container};codecs=${name}`));
}

/** Playlists alone: what is redirected to the bucket would need its permission for the header. */
export const byScript = (request: XMLHttpRequest, url: string): void => {
  if (!new URL(url, location.href).pathname.endsWith(".m3u8")) return;
  if (request.readyState === 0) request.open("GET", url, true);
  for (const [name, value] of Object.entries(BY_SCRIPT)) request.setRequestHeader(name, value);
};

/** Reads a playlist for its times, for browsers that play it by themselves. */
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

/** What the server's answer says went wrong. */
export function serverReason(request: unknown): string | undefined {
  try {
    const { response } = request as XMLHttpRequest;
    // Media are asked for as bytes.
    return String(JSON.parse(response instanceof ArrayBuffer ? new TextDecoder().decode(response) : response).error);
  } catch {
    return undefined;
  }
}

/** What is wrong where a request of hls.js was not answered as it should, with its `details`. */
export function lack(status: number, request: unknown, details: string): ApiError {
  if (details === "manifestParsingError") return new ApiError(status, FOREIGN, "");
  return new ApiError(status, serverReason(request) ?? (status > 0 ? `it cannot be loaded (${details})` : UNANSWERED), "");
}
