// Plays a camera by the clock: instants in, instants out. One window of three hours is one playlist; the next follows at its end.
import type HlsClass from "hls.js";
import { AGAIN, type About, ApiError, NEVER, type Timeline, failure, get } from "./api";
import { HOUR, clock, iso } from "./time";

/** How much of the past a window holds, so that going back is no new window. */
const LEAD = HOUR;
const WINDOW = 3 * HOUR;

export interface Listener {
  /** The instant that is shown, and whether it plays. */
  moved(at: number, playing: boolean): void;
  /** Something to tell; empty: nothing any more. */
  said(text: string): void;
  /** Codecs of streams that do not play in a browser. */
  leftOut?(codecs: string[]): void;
}

/** Where an instant lies: at `position` of the playlist (s), in a gap until an instant (ms) that lies at `position`, behind all that is stored, or not known yet. */
export type Place = { kind: "stored"; position: number } | { kind: "gap"; until: number; position: number } | { kind: "after"; end: number } | { kind: "loading" };

/** A segment of the playlist: where it lies in the player's time (s), and the instant at which it begins (ms). */
interface Segment { start: number; duration: number; at: number }

export const ranges = (of: TimeRanges): [number, number][] => Array.from({ length: of.length }, (_, index) => [of.start(index), of.end(index)]);

/** Reads a playlist for its times, for browsers that play it by themselves. */
async function read(address: string): Promise<Segment[]> {
  const response = await fetch(address);
  if (!response.ok) throw await failure(response);
  const segments: Segment[] = [];
  let [start, at] = [0, NaN];
  for (const line of (await response.text()).split("\n")) {
    const [name, value = ""] = line.split(/:(.*)/);
    if (name === "#EXT-X-PROGRAM-DATE-TIME") at = Date.parse(value);
    if (name !== "#EXTINF") continue;
    const duration = Number.parseFloat(value);
    segments.push({ start, duration, at });
    start += duration;
  }
  return segments;
}

const segment = (fragment: { start: number; duration: number; programDateTime: number | null }): Segment => ({
  start: fragment.start, duration: fragment.duration, at: fragment.programDateTime ?? NaN,
});

/** What the server's answer says went wrong. */
function told(request: unknown): string | undefined {
  try {
    return String(JSON.parse((request as XMLHttpRequest).responseText).error);
  } catch {
    return undefined;
  }
}

/** Whether the server is asked to send everything itself: once the bucket refused this page (CORS), it does so for all. */
let byProxy = false;

/** The address of a playlist, with what tells where its media come from. */
const delivered = (address: string) => (byProxy ? `${address}&delivery=proxy` : address);

type Loaded = { Hls: typeof HlsClass };
let loaded: Promise<Loaded> | undefined;
// esbuild leaves the address alone: it is a file of its own.
const load = (): Promise<Loaded> => (loaded ??= import("/assets/hls.js" as string).then((module) => ({ Hls: module.default })));

export class Player {
  private hls: HlsClass | undefined;
  /** The one whose playlist is on its way. */
  private coming: HlsClass | undefined;
  private segments: Segment[] = [];
  private from = 0;
  private to = 0;
  private live = false;
  private turn = 0;
  /** The window holds nothing. */
  private isEmpty = false;
  /** What is still to be told once the next window is there. */
  private note = "";
  /** The window is asked for, and not answered yet. */
  private isComing = false;

  /** With `isLed` somebody else's clock decides what is shown: nothing goes on by itself. */
  constructor(private readonly video: HTMLVideoElement, private readonly camera: string, private readonly listener: Listener, private readonly isLed = false) {
    video.addEventListener("timeupdate", this.tell);
    video.addEventListener("seeked", this.tell);
    video.addEventListener("play", this.tell);
    video.addEventListener("pause", this.tell);
    video.addEventListener("ended", this.goOn);
  }

  close(): void {
    this.turn++;
    this.video.removeEventListener("timeupdate", this.tell);
    this.video.removeEventListener("seeked", this.tell);
    this.video.removeEventListener("play", this.tell);
    this.video.removeEventListener("pause", this.tell);
    this.video.removeEventListener("ended", this.goOn);
    this.coming?.destroy();
    this.hls?.destroy();
  }

  /** The instant that is shown. */
  at(): number | undefined {
    const time = this.video.currentTime;
    const segment = this.segments.find(({ start, duration }) => time < start + duration) ?? this.segments.at(-1);
    if (!segment || this.video.readyState === 0) return undefined;
    return segment.at + Math.max(0, time - segment.start) * 1000;
  }

  isLive(): boolean {
    return this.live;
  }

  /** Where an instant lies, as far as the loaded window tells. */
  place(at: number): Place {
    if (this.isComing || !this.covers(at)) return { kind: "loading" };
    const last = this.segments.at(-1);
    if (this.isEmpty || !last) return this.isEmpty ? { kind: "after", end: this.from } : { kind: "loading" };
    const next = this.segments.find(({ at: begins, duration }) => at < begins + duration * 1000);
    if (!next) return { kind: "after", end: last.at + last.duration * 1000 };
    // Times of neighbours differ by some milliseconds.
    if (at < next.at - 150) return { kind: "gap", until: next.at, position: next.start };
    return { kind: "stored", position: next.start + Math.max(0, at - next.at) / 1000 };
  }

  /** Whether the window around an instant is loaded, or on its way. */
  covers(at: number): boolean {
    return at >= this.from && at < this.to;
  }

  /** How long the newest chunk that is known is, ms. */
  chunk(): number | undefined {
    const last = this.segments.at(-1);
    return last && last.duration * 1000;
  }

  /** Loads what is stored around an instant anew. */
  load(at: number): Promise<void> {
    return this.open(at - LEAD, at - LEAD + WINDOW, at, false);
  }

  /** Shows the instant, or the first one after it that is stored. */
  async seek(at: number, play = true): Promise<void> {
    if (!this.live && this.segments.length > 0 && at >= this.from && at < this.to) {
      const position = this.position(at);
      if (position !== undefined) {
        this.video.currentTime = position;
        if (play) void this.play();
        return;
      }
    }
    await this.open(at - LEAD, at - LEAD + WINDOW, at, play);
  }

  /** Follows the running recording, from an instant on if one is given. */
  async follow(at?: number, play = true): Promise<void> {
    this.live = true;
    // It grows by itself.
    [this.from, this.to] = [at ?? -Infinity, Infinity];
    [this.isEmpty, this.isComing] = [false, true];
    await this.source(`/hls/live.m3u8?${new URLSearchParams({ camera: this.camera })}`, at, play);
  }

  async play(): Promise<void> {
    try {
      await this.video.play();
    } catch (error) {
      // A browser that does not start by itself, or a new window that replaced this one: neither is a fault.
      if ((error as Error).name === "NotAllowedError") this.listener.said("press play to start");
    }
  }

  private async open(from: number, to: number, at: number, play: boolean): Promise<void> {
    [this.from, this.to, this.live] = [from, to, false];
    [this.isEmpty, this.isComing] = [false, true];
    await this.source(`/hls/index.m3u8?${new URLSearchParams({ camera: this.camera, from: iso(from), to: iso(to) })}`, at, play);
  }

  private async source(address: string, at: number | undefined, play: boolean): Promise<void> {
    const turn = ++this.turn;
    const { Hls } = await load();
    if (turn !== this.turn) return;
    if (!Hls.isSupported()) return this.byItself(delivered(address), at, play, turn);
    const proxied = byProxy;
    const hls = new Hls({ autoStartLoad: false, workerPath: "/assets/hls.worker.js", backBufferLength: 120, maxBufferLength: 30 });
    this.coming?.destroy();
    this.coming = hls;
    // What was shown stays until the playlist is there.
    hls.once(Hls.Events.LEVEL_LOADED, (_, { details }) => {
      this.coming = undefined;
      this.isComing = false;
      this.hls?.destroy();
      this.hls = hls;
      this.segments = details.fragments.map(segment);
      this.listener.said("");
      this.listener.leftOut?.(Array.from(details.m3u8.matchAll(/^# left out: (\S+)$/gm), ([, codec = ""]) => decodeURIComponent(codec)));
      hls.attachMedia(this.video);
      hls.startLoad(this.start(at));
      if (this.note) this.listener.said(this.note);
      this.note = "";
      if (play) void this.play();
    });
    // What it learns from the media is more exact than what the playlist says.
    hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => {
      if (this.hls === hls) this.segments = details.fragments.map(segment);
    });
    hls.on(Hls.Events.ERROR, (_, data) => {
      // Media that were not answered at all: a redirect to the bucket that its CORS rules, or the network, do not let through.
      const unanswered = data.type === Hls.ErrorTypes.NETWORK_ERROR && data.frag !== undefined && !data.response?.code;
      if (unanswered && !proxied) void this.comeByProxy(address, at, play, turn);
      // hls.js would ask for it half a minute long.
      if (data.frag && data.response?.code === 404) return this.goOver(hls, turn);
      if (!data.fatal) return;
      if (data.type === Hls.ErrorTypes.MEDIA_ERROR) {
        this.listener.said(`this browser cannot play it (${data.details}); the recording can be downloaded and played elsewhere`);
        if (data.details !== Hls.ErrorDetails.BUFFER_ADD_CODEC_ERROR) hls.recoverMediaError();
      } else {
        this.failed(new ApiError(data.response?.code ?? 0, told(data.networkDetails) ?? `it cannot be loaded (${data.details})`, ""));
        this.tryAgain(address, at, play, turn, data.response?.code ?? 0);
      }
      if (this.coming === hls) {
        this.coming = undefined;
        hls.destroy();
      }
    });
    hls.loadSource(delivered(address));
  }

  /** A chunk was deleted after the playlist was made: goes on behind it. */
  private goOver(hls: HlsClass, turn: number): void {
    this.note = "a piece is not in the bucket any more; it goes on after it";
    this.listener.said(this.note);
    const loaded = Math.max(this.video.currentTime, ...ranges(this.video.buffered).map(([, end]) => end));
    const lost = this.segments.find(({ start, duration }) => loaded < start + duration - 0.05) ?? this.segments.at(-1);
    if (!lost) return;
    // hls.js takes the piece before for what begins less than 250 ms behind it.
    const end = lost.at + lost.duration * 1000 + 400;
    hls.stopLoad();
    const wait = Math.max(500, ((loaded - this.video.currentTime) * 1000) / this.video.playbackRate);
    // What is loaded is shown to its end.
    setTimeout(() => turn === this.turn && void this.open(end - LEAD, end - LEAD + WINDOW, end, !this.isLed), wait);
  }

  /** The bucket or the network fails: what was asked for is asked for again, as long as nothing else is. */
  private tryAgain(address: string, at: number | undefined, play: boolean, turn: number, status: number): void {
    // Refused, or nothing there: that does not pass by itself.
    if (this.isLed || status === 401 || status === 404 || status === 400) return;
    const shown = this.live ? undefined : (this.at() ?? at);
    setTimeout(() => turn === this.turn && void this.source(address, shown, play), AGAIN);
  }

  /** Loads the playlist anew through the server, if media are redirected to the bucket. */
  private async comeByProxy(address: string, at: number | undefined, play: boolean, turn: number): Promise<void> {
    const about = await get<About>("/api/about").catch(() => undefined);
    if (about?.delivery !== "redirect" || turn !== this.turn) return;
    byProxy = true;
    await this.source(address, this.live ? undefined : (this.at() ?? at), play);
  }

  /** Safari on a phone has no player but its own. */
  private async byItself(address: string, at: number | undefined, play: boolean, turn: number): Promise<void> {
    const segments = await read(address).catch((error: Error) => error);
    if (turn !== this.turn) return;
    if (segments instanceof Error) return this.failed(segments);
    this.segments = segments;
    this.isComing = false;
    this.listener.said("");
    const position = this.start(at);
    this.video.src = position > 0 ? `${address}#t=${position}` : address;
    if (play) void this.play();
  }

  private failed(error: Error): void {
    this.isComing = false;
    // What was shown before is not what was asked for.
    if (this.isLed) this.segments = [];
    if (error instanceof ApiError && error.status === 401) dispatchEvent(new Event("log-in"));
    else {
      this.isEmpty = error instanceof ApiError && error.status === 404;
      const nothing = error.message === NEVER ? NEVER : "nothing is recorded here";
      this.listener.said(this.isEmpty ? nothing : `${error.message}; it is tried again`);
    }
  }

  /** Where to begin, seconds; -1: where the player thinks best. */
  private start(at: number | undefined): number {
    return at === undefined ? -1 : (this.position(at) ?? this.segments.at(-1)?.start ?? -1);
  }

  /** Where an instant lies in the playlist, seconds. In a gap: where it goes on. */
  private position(at: number): number | undefined {
    for (const { at: begins, start, duration } of this.segments) {
      if (!(at < begins + duration * 1000)) continue;
      this.listener.said(begins - at > 1000 ? `nothing is recorded here; it goes on ${clock(begins)}` : "");
      return start + Math.max(0, at - begins) / 1000;
    }
    return undefined;
  }

  private tell = (): void => {
    const at = this.at();
    if (at !== undefined) this.listener.moved(at, !this.video.paused);
  };

  /** At the end of a window: the next one, if anything follows. */
  private goOn = (): void => {
    const last = this.segments.at(-1);
    if (this.live || this.isLed || !last) return;
    const end = last.at + last.duration * 1000;
    const turn = this.turn;
    get<Timeline>("/api/timeline", { camera: this.camera, from: iso(end), to: iso(end + WINDOW) }).then(({ ranges }) => {
      if (turn !== this.turn) return;
      if (ranges.length > 0) void this.open(end, end + WINDOW, end, true);
      else this.listener.said("nothing is stored after this");
    }, () => {});
  };
}
