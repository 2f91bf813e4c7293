// Texts for people, from the server's identifiers.
import type { Badge } from "./api";
import type { Skipped } from "./bar";
import { moment } from "./time";

export const BADGES: Record<Badge, { icon: string; word: string; rank: number }> = {
  "never-seen": { icon: "✕", word: "never seen", rank: 0 },
  offline: { icon: "✕", word: "offline", rank: 1 },
  "camera-lost": { icon: "✕", word: "camera lost", rank: 2 },
  "not-recording": { icon: "!", word: "not recording", rank: 3 },
  unknown: { icon: "?", word: "unknown", rank: 4 },
  late: { icon: "…", word: "late", rank: 5 },
  stopped: { icon: "■", word: "stopped", rank: 6 },
  recording: { icon: "●", word: "recording", rank: 7 },
};

const REASONS: Record<string, string> = {
  "not-stored": "not in the bucket (yet)",
  start: "recording was started",
  "recorder-started": "the recorder was started",
  discont: "the stream was interrupted",
  damage: "the stream was damaged",
  stalled: "no pictures came",
  "record-stopped": "recording was stopped",
  "camera-frozen": "the camera froze",
  "camera-unreachable": "the camera did not answer",
  "camera-refused": "the camera refused",
  "no-key-frames": "no key frames came",
  reconfigured: "the recorder was reconfigured",
  unknown: "not recorded",
};

/** Looks a name up. Own properties only: a name from the bucket may be that of an inherited one, such as `constructor`. */
const of = (table: Record<string, string>, name: string): string | undefined => (Object.hasOwn(table, name) ? table[name] : undefined);

export const reason = (name: string): string => of(REASONS, name) ?? name;

/** Describes a time without recordings that was skipped. */
export function skippedOver({ at, until, reason: cause }: Skipped): string {
  return `nothing is recorded here; it goes on ${moment(until, at)}${cause ? `: ${reason(cause)}` : ""}`;
}

const CODECS: Record<string, string> = { alaw: "sound as G.711 A-law", ulaw: "sound as G.711 µ-law", "ac-3": "sound as AC-3", "ec-3": "sound as E-AC-3", alac: "sound as ALAC", ipcm: "sound as PCM", sowt: "sound as PCM", twos: "sound as PCM", hvc1: "H.265 video", hev1: "H.265 video", vp8: "VP8 video", vp9: "VP9 video", vp08: "VP8 video", vp09: "VP9 video", av01: "AV1 video", vorbis: "Vorbis sound", opus: "Opus sound", "mp4a.40.32": "sound as MPEG layer 1", "mp4a.40.33": "sound as MP2", "mp4a.40.34": "sound as MP3" };

/** Names codecs for people, with a capital for the beginning of a sentence. */
export function codecs(names: string[]): string {
  const all = names.map((name) => of(CODECS, name) ?? of(CODECS, name.split(".")[0] ?? name) ?? `what is coded as ${name}`).join(" and ");
  return all.slice(0, 1).toUpperCase() + all.slice(1);
}
