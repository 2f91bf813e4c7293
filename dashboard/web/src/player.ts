// Plays a camera by the clock: instants in, instants out. One window of three hours is one playlist; the next follows at its end.
import type HlsClass from "hls.js";
import type { LevelDetails } from "hls.js";
import { AGAIN, type About, ApiError, NEVER, get, isFinal } from "./api";
import type { Skipped } from "./bar";
import { now } from "./now";
import { byScript, lack, read, segment, serverReason, unplayable } from "./playlist";
import { lookOn } from "./search";
import { onceSeen, pause } from "./seen";
import { type Segment, ends, latestEnd, segmentAt } from "./segments";
import { askForToken, loggedIn } from "./session";
import { RECENT } from "./steady";
import { HOUR, clock, iso } from "./time";
import { codecs } from "./words";

/** How much of the past a window holds, so that going back is no new window. */
const LEAD = HOUR;
const WINDOW = 3 * HOUR;
/** What is told of a piece that is not shown. */
const ON = "it goes on after it";

export interface Listener {
  /** The instant that is shown, and whether it plays. */
  moved(at: number, playing: boolean): void;
  /** Something to tell, or what was skipped; empty: nothing any more. */
  said(what: string | Skipped): void;
  /** Codecs of streams that do not play in a browser. */
  leftOut?(codecs: string[]): void;
}

/** Where an instant lies: at `position` of the playlist (s), in a gap until an instant (ms), behind all that is stored (up to `end`, if the window holds that), or not known yet. */
export type Place = { kind: "stored"; position: number } | { kind: "gap"; until: number; reason?: string | undefined } | { kind: "after"; end: number | undefined } | { kind: "loading" };

/** What a window is to show once it is there. */
interface Wish { at: number | undefined; play: boolean }

export const ranges = (of: TimeRanges): [number, number][] => Array.from({ length: of.length }, (_, index) => [of.start(index), of.end(index)]);

/** Whether the server is asked to send everything itself: once the bucket refused this page (CORS), it does so for all. */
let byProxy = false;

/** The address of a playlist, with what tells where its media come from. */
const delivered = (address: string) => (byProxy ? `${address}&delivery=proxy` : address);

type Loaded = { Hls: typeof HlsClass };
let loaded: Promise<Loaded> | undefined;
let failures = 0;

/** Loads hls.js, once. esbuild leaves the address alone: it is a file of its own. */
function load(): Promise<Loaded> {
  // A browser remembers that an address could not be imported: the next try has another one.
  const address = failures > 0 ? `/assets/hls.js?again=${failures}` : "/assets/hls.js";
  loaded ??= import(address).then((module) => ({ Hls: module.default }), () => {
    failures++;
    loaded = undefined;
    throw new ApiError(0, "the player cannot be loaded from the dashboard", "");
  });
  return loaded;
}

export class Player {
  private hls: HlsClass | undefined;
  /** The one whose playlist is on its way. */
  private coming: HlsClass | undefined;
  private segments: Segment[] = [];
  private from = 0;
  private to = 0;
  private live = false;
  /** The window that the picture is of; what is asked for is in `from`, `to` and `live`. */
  private shown: { from: number; to: number; live: boolean } | undefined;
  private turn = 0;
  /** The window holds nothing. */
  private isEmpty = false;
  /** What follows the window's recordings, for who is led; null: nothing does. */
  private next: Skipped | null | undefined;
  /** Counts what is looked for beyond the window: a newer wish ends an older search. */
  private search = 0;
  private isSearching = false;
  /** Where the last window began that followed another. */
  private continued: number | undefined;
  /** A codec that this browser has no decoder for. */
  private isUndecodable = false;
  /** What is still to be told once the next window is there: what was skipped, or why a piece was gone over. */
  private note: string | Skipped = "";
  /** The piece that was gone over last, by its begin (ms), and the turn in which nothing more is loaded because of it. */
  private lost: { at: number; turn: number } | undefined;
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
    this.search++;
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

  /** Whether the running recording is followed, or asked for. */
  isLive(): boolean {
    return this.live;
  }

  /** Whether the picture is one of the running recording. */
  showsLive(): boolean {
    return this.shown?.live ?? false;
  }

  /** Where an instant lies, as far as the loaded window and what was found behind it tell. */
  place(at: number): Place {
    if (this.isComing || !this.covers(at)) return { kind: "loading" };
    const last = this.segments.at(-1);
    if (!last && !this.isEmpty) return { kind: "loading" };
    const next = segmentAt(this.segments, at);
    if (!next) return this.behind(at, this.live ? this.end() : latestEnd(this.segments));
    // Times of neighbours differ by some milliseconds.
    if (at < next.at - 150) return { kind: "gap", until: next.at };
    return { kind: "stored", position: next.start + Math.max(0, at - next.at) / 1000 };
  }

  /** Whether the window around an instant is loaded, or on its way. */
  covers(at: number): boolean {
    return at >= this.from && at < this.to;
  }

  /** Where an instant lies that is behind all of the window: what follows is looked for, where a running recording does not grow by itself. */
  private behind(at: number, end: number | undefined): Place {
    if (this.live || now() - at < RECENT) return { kind: "after", end };
    if (this.next === undefined) {
      if (!this.isSearching) void this.lookBehind(end ?? at);
      return { kind: "loading" };
    }
    if (this.next === null) return { kind: "after", end };
    return { kind: "gap", until: this.next.until, reason: this.next.reason };
  }

  private async lookBehind(end: number): Promise<void> {
    const found = await this.follows(end, true);
    if (found === "over") return;
    this.next = found ?? null;
    // Up to there it is known.
    if (found) this.to = Math.max(this.to, found.until);
  }

  /** The first instant from `at` on of which something is stored, asked for until it is answered; "over" once something else is wanted. */
  private async follows(at: number, isBeyond: boolean): Promise<Skipped | undefined | "over"> {
    const search = ++this.search;
    this.isSearching = true;
    try {
      for (let failures = 0; ; failures++) {
        const found = await lookOn(this.camera, at, isBeyond).catch((error: Error) => error);
        if (search !== this.search) return "over";
        if (!(found instanceof Error)) {
          if (failures > 0) this.listener.said("");
          return found;
        }
        if (found instanceof ApiError && found.status === 401) {
          askForToken();
          await loggedIn();
          if (search !== this.search) return "over";
          continue;
        }
        // Who is led asks for it as long as the clock is there.
        const isOver = !this.isLed && found instanceof ApiError && isFinal(found.status);
        this.listener.said(isOver ? found.message : `${found.message}; it is tried again`);
        if (isOver) return "over";
        await pause(AGAIN);
        if (search !== this.search) return "over";
      }
    } finally {
      if (search === this.search) this.isSearching = false;
    }
  }

  /** Whether what is stored here cannot be decoded by this browser. */
  isUnplayable(): boolean {
    return this.isUndecodable;
  }

  /** The end of what is known to be stored, ms. */
  end(): number | undefined {
    const last = this.segments.at(-1);
    return last && last.at + last.duration * 1000;
  }

  /** How long the newest chunk that is known is, ms. */
  chunk(): number | undefined {
    const last = this.segments.at(-1);
    return last && last.duration * 1000;
  }

  /** Loads what is stored around an instant anew. */
  async load(at: number): Promise<void> {
    // What follows is being looked for.
    if (this.isSearching && this.covers(at)) return;
    return this.open(at - LEAD, at - LEAD + WINDOW, at, false);
  }

  /** Shows the instant, or the first one after it that is stored. */
  async seek(at: number, play = true): Promise<void> {
    const isLoaded = !this.live && !this.isEmpty && !this.isComing && !this.coming && this.lost?.turn !== this.turn;
    if (isLoaded && this.covers(at)) {
      const position = this.position(at);
      if (position !== undefined) {
        this.search++;
        this.isSearching = false;
        this.video.currentTime = position;
        if (play) void this.play();
        return;
      }
    }
    this.note = "";
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
    // A browser would begin again from the front.
    if (this.video.ended && !this.live && !this.isLed) return this.goOn();
    try {
      await this.video.play();
    } catch (error) {
      // A browser that does not start by itself, or a new window that replaced this one: neither is a fault.
      if ((error as Error).name === "NotAllowedError") this.listener.said("press play to start");
    }
  }

  private async open(begin: number, end: number, at: number, play: boolean, isContinued = false): Promise<void> {
    // Nothing is before 1970.
    const [from, to] = [Math.max(0, begin), Math.max(WINDOW, end)];
    [this.from, this.to, this.live] = [from, to, false];
    [this.isEmpty, this.isComing] = [false, true];
    await this.source(`/hls/index.m3u8?${new URLSearchParams({ camera: this.camera, from: iso(from), to: iso(to) })}`, at, play, isContinued);
  }

  /** With `isContinued` what lies before the instant was shown: it is not shown again. */
  private async source(address: string, at: number | undefined, play: boolean, isContinued = false): Promise<void> {
    const turn = ++this.turn;
    this.search++;
    [this.isSearching, this.next, this.isUndecodable] = [false, undefined, false];
    const library = await load().catch((error: Error) => error);
    if (turn !== this.turn) return;
    if (library instanceof Error) {
      this.failed(library);
      return this.tryAgain(address, () => ({ at, play }), turn, library, isContinued);
    }
    const { Hls } = library;
    if (!Hls.isSupported()) return this.byItself(delivered(address), at, play, turn, isContinued);
    const proxied = byProxy;
    const hls = new Hls({ autoStartLoad: false, workerPath: "/assets/hls.worker.js", backBufferLength: 120, maxBufferLength: 30, xhrSetup: byScript });
    this.coming?.destroy();
    this.coming = hls;
    // What was shown stays until the playlist is there.
    hls.once(Hls.Events.LEVEL_LOADED, (_, { details }) => {
      const segments = details.fragments.map(segment);
      if (this.live && !this.isLed && at !== undefined && segments.at(-1)?.at === this.lost?.at) {
        // Of a running recording the next piece comes: the one that cannot be played is not asked for meanwhile.
        this.isComing = false;
        return void setTimeout(() => turn === this.turn && void this.follow(at, !this.video.paused), AGAIN);
      }
      if (this.endsBefore(segments, at)) {
        // What was shown stays; nothing of the window is from the instant on.
        this.isComing = false;
        return void this.goTo(at ?? 0, play, isContinued ? undefined : () => shows(details));
      }
      shows(details);
    });
    const shows = (details: LevelDetails) => {
      this.coming = undefined;
      this.hls?.destroy();
      this.hls = hls;
      this.showing(details.fragments.map(segment));
      this.listener.said("");
      this.listener.leftOut?.(Array.from(details.m3u8.matchAll(/^# left out: (\S+)$/gm), ([, codec = ""]) => decodeURIComponent(codec)));
      hls.attachMedia(this.video);
      hls.startLoad(this.start(at));
      this.tellNote();
      if (play) void this.play();
    };
    // What it learns from the media is more exact than what the playlist says.
    hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => {
      if (this.hls === hls) this.segments = details.fragments.map(segment);
    });
    // A header has no place in the playlist: what is lost is the piece that it was asked for.
    let wanted: Segment | undefined;
    hls.on(Hls.Events.FRAG_LOADING, (_, { frag }) => {
      if (frag.sn !== "initSegment") wanted = segment(frag);
    });
    hls.on(Hls.Events.ERROR, (_, data) => {
      // Media that were not answered at all: a redirect to the bucket that its CORS rules, or the network, do not let through.
      const unanswered = data.type === Hls.ErrorTypes.NETWORK_ERROR && data.frag !== undefined && !data.response?.code;
      if (unanswered && !proxied) void this.comeByProxy(address, at, play, turn);
      // hls.js would ask for it half a minute long.
      if (data.frag && data.response?.code === 404) return this.goOver(hls, turn, wanted, "a piece is not in the bucket any more");
      // Asked for again it would be what it is.
      if (data.frag && data.response?.code === 415) return this.goOver(hls, turn, wanted, `a piece cannot be played: ${serverReason(data.networkDetails) ?? "it is damaged"}`);
      if (!data.fatal) return;
      if (data.type === Hls.ErrorTypes.MEDIA_ERROR) {
        const without = unplayable(data.mimeType);
        this.isUndecodable = data.details === Hls.ErrorDetails.BUFFER_ADD_CODEC_ERROR;
        const what = without.length > 0 ? `${codecs(without)} does not play in this browser` : `this browser cannot play it (${data.details})`;
        this.listener.said(`${what}; the recording can be downloaded and played elsewhere`);
        if (data.details !== Hls.ErrorDetails.BUFFER_ADD_CODEC_ERROR) hls.recoverMediaError();
      } else {
        const error = lack(data.response?.code ?? 0, data.networkDetails, data.details);
        this.failed(error);
        if (this.isEmpty && at !== undefined && error.message !== NEVER && !this.isLed) void this.goTo(at, play);
        // A window that is not there yet is asked for again for what was wanted of it, another one for what is shown then.
        else this.tryAgain(address, this.coming === hls ? () => ({ at, play }) : this.asShown(at), turn, error, isContinued);
      }
      if (this.coming === hls) {
        this.coming = undefined;
        hls.destroy();
      }
    });
    hls.loadSource(delivered(address));
  }

  /** The window that was asked for is the one that is shown. */
  private showing(segments: Segment[]): void {
    this.segments = segments;
    this.isComing = false;
    this.shown = { from: this.from, to: this.to, live: this.live };
  }

  /** What a window that was shown is to show again: the picture that it has then, paused if it is. */
  private asShown(otherwise: number | undefined): () => Wish {
    return () => ({ at: this.at() ?? otherwise, play: !this.video.paused });
  }

  /** Whether all of a window lies before an instant that its reader wants to see. */
  private endsBefore(segments: Segment[], at: number | undefined): boolean {
    return at !== undefined && !this.live && !this.isLed && !segmentAt(segments, at);
  }

  /** Goes to the first recording behind an instant of which the window has nothing; `otherwise`, if nothing follows. */
  private async goTo(at: number, play: boolean, otherwise?: () => void): Promise<void> {
    const found = await this.follows(at, true);
    if (found === "over") return;
    if (found) {
      this.note = found;
      return this.open(found.until - LEAD, found.until - LEAD + WINDOW, found.until, play);
    }
    otherwise?.();
    const why = typeof this.note === "string" && this.note !== "" ? `${this.note}; ` : "";
    this.note = "";
    this.listener.said(`${why}nothing is stored after ${clock(at)}`);
  }

  private tellNote(): void {
    if (this.note) this.listener.said(typeof this.note === "string" ? `${this.note}; ${ON}` : this.note);
    this.note = "";
  }

  /** A chunk was deleted after the playlist was made, or cannot be played: says why, and goes on behind it. */
  private goOver(hls: HlsClass, turn: number, lost: Segment | undefined, why: string): void {
    if (!lost || this.lost?.turn === turn) return;
    this.listener.said(`${why}; ${ON}`);
    this.lost = { at: lost.at, turn };
    hls.stopLoad();
    setTimeout(() => this.goBehind(hls, turn, lost, why), 500);
  }

  /** Goes on behind a piece once what is loaded before it was shown. */
  private goBehind(hls: HlsClass, turn: number, lost: Segment, why: string): void {
    if (turn !== this.turn) return;
    const left = this.left();
    // Who pauses keeps the picture.
    if (left > 0.1) return void setTimeout(() => this.goBehind(hls, turn, lost, why), Math.min(1000, Math.max(100, (left * 1000) / this.video.playbackRate)));
    // hls.js takes the piece before for what begins less than 250 ms behind it.
    const end = ends(lost) + 400;
    if (this.isLed && !segmentAt(this.segments, end)) return this.rests(hls, turn);
    this.note = why;
    const play = !this.isLed && !this.video.paused;
    if (this.live && !this.isLed) void this.follow(end, play);
    else void this.open(end - LEAD, end - LEAD + WINDOW, end, play, true);
  }

  /** Loads nothing until the clock goes elsewhere. */
  private rests(hls: HlsClass, turn: number): void {
    const goOn = () => {
      if (turn !== this.turn) return;
      this.lost = undefined;
      hls.startLoad(this.video.currentTime);
    };
    this.video.addEventListener("seeking", goOn, { once: true });
  }

  /** How much of what is loaded is still to be shown, s. */
  private left(): number {
    const now = this.video.currentTime;
    // Over holes as small as hls.js plays over.
    return ranges(this.video.buffered).reduce((end, [from, to]) => (from <= end + 0.1 ? Math.max(end, to) : end), now) - now;
  }

  /** The bucket or the network fails: what was asked for is asked for again, as long as nothing else is. */
  private tryAgain(address: string, wish: () => Wish, turn: number, error: Error, isContinued: boolean): void {
    if (this.isLed) return;
    const again = () => {
      if (turn !== this.turn) return;
      const { at, play } = wish();
      // A running recording would go on at its end: who has stopped it wants the picture that is there.
      if (this.live && !play && at !== undefined) void this.open(at - LEAD, at - LEAD + WINDOW, at, false);
      else void this.source(address, this.live ? undefined : at, play, isContinued);
    };
    if (error instanceof ApiError && error.status === 401) void loggedIn().then(again);
    else if (!(error instanceof ApiError && isFinal(error.status))) onceSeen(again, AGAIN);
  }

  /** Loads the playlist anew through the server, if media are redirected to the bucket. */
  private async comeByProxy(address: string, at: number | undefined, play: boolean, turn: number): Promise<void> {
    const about = await get<About>("/api/about").catch(() => undefined);
    if (about?.delivery !== "redirect" || turn !== this.turn) return;
    byProxy = true;
    await this.source(address, this.live ? undefined : (this.at() ?? at), play);
  }

  /** Safari on a phone has no player but its own. */
  private async byItself(address: string, at: number | undefined, play: boolean, turn: number, isContinued: boolean): Promise<void> {
    const segments = await read(address).catch((error: Error) => error);
    if (turn !== this.turn) return;
    if (segments instanceof Error) {
      this.failed(segments);
      if (this.isEmpty && at !== undefined && segments.message !== NEVER && !this.isLed) return this.goTo(at, play);
      return this.tryAgain(address, () => ({ at, play }), turn, segments, isContinued);
    }
    if (this.endsBefore(segments, at)) {
      this.isComing = false;
      return this.goTo(at ?? 0, play, isContinued ? undefined : () => this.showsItself(segments, address, at, play));
    }
    this.showsItself(segments, address, at, play);
  }

  private showsItself(segments: Segment[], address: string, at: number | undefined, play: boolean): void {
    this.showing(segments);
    this.listener.said("");
    const position = this.start(at);
    this.video.src = position > 0 ? `${address}#t=${position}` : address;
    this.tellNote();
    if (play) void this.play();
  }

  private failed(error: Error): void {
    this.isComing = false;
    // What was shown before is not what was asked for.
    if (this.isLed) this.segments = [];
    if (error instanceof ApiError && error.status === 401) askForToken();
    else if (this.live && !this.isLed && error instanceof ApiError && isFinal(error.status)) {
      // What was shown goes on, and is not the running recording.
      [this.from, this.to, this.live] = [this.shown?.from ?? 0, this.shown?.to ?? 0, this.shown?.live ?? false];
      this.listener.said(error.message);
      if (this.video.ended) this.goOn();
    } else {
      this.isEmpty = error instanceof ApiError && error.status === 404;
      const nothing = error.message === NEVER ? NEVER : "nothing is recorded here";
      const isAgain = this.isLed || !(error instanceof ApiError && isFinal(error.status));
      this.listener.said(this.isEmpty ? nothing : isAgain ? `${error.message}; it is tried again` : error.message);
    }
  }

  /** Where to begin, seconds; -1: where the player thinks best. */
  private start(at: number | undefined): number {
    return at === undefined ? -1 : (this.position(at) ?? this.segments.at(-1)?.start ?? -1);
  }

  /** Where an instant lies in the playlist, seconds. In a gap: where it goes on. */
  private position(at: number): number | undefined {
    const next = segmentAt(this.segments, at);
    if (!next) return undefined;
    this.listener.said(next.at - at > 1000 ? { at, until: next.at } : "");
    return next.start + Math.max(0, at - next.at) / 1000;
  }

  private tell = (): void => {
    // Another instant is wanted: where the old picture is tells nothing.
    if (this.isComing || this.isSearching) return;
    const at = this.at();
    if (at !== undefined) this.listener.moved(at, !this.video.paused);
  };

  /** At the end of a window: the next one, if anything follows. */
  private goOn = (): void => {
    const latest = latestEnd(this.segments);
    if (this.live || this.isLed || latest === undefined) return;
    // Times are rounded: what was shown ends up to a millisecond later than it is said to.
    const end = latest + 1;
    // Where going on brought nothing, what is stored there is no longer than it seems.
    const isBeyond = this.continued !== undefined && end - this.continued < 1000;
    void this.follows(end, isBeyond).then((found) => {
      if (found === "over") return;
      if (!found) return this.listener.said("nothing is stored after this");
      if (found.until - end > 1000) this.note = found;
      this.continued = found.until;
      void this.open(found.until, found.until + WINDOW, found.until, true, true);
    });
  };
}
