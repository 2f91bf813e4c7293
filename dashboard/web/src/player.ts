// Plays a camera by instants instead of positions in a video. It loads one playlist, a window of three hours, and the next one at its end.
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

/** How far a window begins before the wanted instant, so that going back needs no new window. */
const LEAD = HOUR;
const WINDOW = 3 * HOUR;
/** The end of the message about a segment that is not shown. */
const ON = "it goes on after it";

export interface Listener {
  /** The picture is now at this instant, and plays or is paused. */
  moved(at: number, playing: boolean): void;
  /** Show this message, or what was skipped; an empty text clears it. */
  said(what: string | Skipped): void;
  /** Codecs of streams that the server left out, since browsers do not play them. */
  leftOut?(codecs: string[]): void;
}

/**
 * Where an instant lies: at `position` of the playlist (s), in a gap until an instant (ms), after all recordings (whose `end` is given if the window
 * holds it), or not known yet.
 */
export type Place = { kind: "stored"; position: number } | { kind: "gap"; until: number; reason?: string | undefined } | { kind: "after"; end: number | undefined } | { kind: "loading" };

/** What a window must show once it is loaded. */
interface Wish { at: number | undefined; play: boolean }

export const ranges = (of: TimeRanges): [number, number][] => Array.from({ length: of.length }, (_, index) => [of.start(index), of.end(index)]);

/** Whether the server must send all media itself. Set for all players once the bucket refused this page (CORS). */
let byProxy = false;

/** Returns the address of a playlist, with the parameter that selects where its media come from. */
const delivered = (address: string) => (byProxy ? `${address}&delivery=proxy` : address);

type Loaded = { Hls: typeof HlsClass };
let loaded: Promise<Loaded> | undefined;
let failures = 0;

/** Loads hls.js once. The address is a variable, so that esbuild does not bundle the file. */
function load(): Promise<Loaded> {
  // A browser remembers a failed import of an address, so each retry needs another one.
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
  /** The instance whose playlist is still loading. */
  private coming: HlsClass | undefined;
  private segments: Segment[] = [];
  private from = 0;
  private to = 0;
  private live = false;
  /** The window that the picture belongs to. `from`, `to` and `live` are those of the requested one. */
  private shown: { from: number; to: number; live: boolean } | undefined;
  /** Counts the loaded sources: an asynchronous step of an older one must do nothing. */
  private turn = 0;
  /** Nothing is stored in the window. */
  private isEmpty = false;
  /** What follows the window's recordings, for a led player; `null`: nothing; `undefined`: not searched yet. */
  private next: Skipped | null | undefined;
  /** Counts the searches beyond the window: a newer request ends an older search. */
  private search = 0;
  private isSearching = false;
  /** Where the last window began that continued another one. */
  private continued: number | undefined;
  /** A codec that this browser has no decoder for. */
  private isUndecodable = false;
  /** The message for when the next window is shown: what was skipped, or why a segment was. */
  private note: string | Skipped = "";
  /** The segment that was skipped last, by its begin (ms), and the turn in which loading stopped because of it. */
  private lost: { at: number; turn: number } | undefined;
  /** The window is requested, and not answered yet. */
  private isComing = false;

  /** With `isLed` the clock of [`Together`] decides what is shown: the player does not continue at the end of a window by itself. */
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

  /** Returns the instant that is shown; `undefined` without a picture. */
  at(): number | undefined {
    const time = this.video.currentTime;
    const segment = this.segments.find(({ start, duration }) => time < start + duration) ?? this.segments.at(-1);
    if (!segment || this.video.readyState === 0) return undefined;
    return segment.at + Math.max(0, time - segment.start) * 1000;
  }

  /** Returns whether the running recording is followed or requested. */
  isLive(): boolean {
    return this.live;
  }

  /** Returns whether the picture is from the running recording. */
  showsLive(): boolean {
    return this.shown?.live ?? false;
  }

  /** Returns where an instant lies, from the loaded window and what was found after it. Starts a search after the window if needed. */
  place(at: number): Place {
    if (this.isComing || !this.covers(at)) return { kind: "loading" };
    const last = this.segments.at(-1);
    if (!last && !this.isEmpty) return { kind: "loading" };
    const next = segmentAt(this.segments, at);
    if (!next) return this.behind(at, this.live ? this.end() : latestEnd(this.segments));
    // The end of a segment and the begin of the next one differ by some milliseconds: that is not a gap.
    if (at < next.at - 150) return { kind: "gap", until: next.at };
    return { kind: "stored", position: next.start + Math.max(0, at - next.at) / 1000 };
  }

  /** Returns whether an instant is inside the window that is loaded or requested. */
  covers(at: number): boolean {
    return at >= this.from && at < this.to;
  }

  /** Returns where an instant after all recordings of the window lies. Searches for the next one, unless a running recording may still grow. */
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
    // Everything up to there is known now, so `covers` includes it.
    if (found) this.to = Math.max(this.to, found.until);
  }

  /** Returns the first stored instant at or after `at`. Retries until it succeeds; "over" if it was refused, or another request replaced it. */
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
        // A led player has no user who asks again, so it repeats even a refused request while the clock is there.
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

  /** Returns whether this browser cannot decode the recording. */
  isUnplayable(): boolean {
    return this.isUndecodable;
  }

  /** Returns the end of the playlist's last segment, ms since 1970. */
  end(): number | undefined {
    const last = this.segments.at(-1);
    return last && last.at + last.duration * 1000;
  }

  /** Returns the length of the playlist's last segment, ms. */
  chunk(): number | undefined {
    const last = this.segments.at(-1);
    return last && last.duration * 1000;
  }

  /** Loads the window around an instant again, without starting to play. */
  async load(at: number): Promise<void> {
    // The search for what follows is still running: a new window would end it.
    if (this.isSearching && this.covers(at)) return;
    return this.open(at - LEAD, at - LEAD + WINDOW, at, false);
  }

  /** Shows the instant, or the first stored one after it. */
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

  /** Follows the running recording, from an instant on if one is given, else near its end. */
  async follow(at?: number, play = true): Promise<void> {
    this.live = true;
    // A live playlist grows, so it covers all later instants.
    [this.from, this.to] = [at ?? -Infinity, Infinity];
    [this.isEmpty, this.isComing] = [false, true];
    await this.source(`/hls/live.m3u8?${new URLSearchParams({ camera: this.camera })}`, at, play);
  }

  async play(): Promise<void> {
    // A browser would play an ended video from its beginning.
    if (this.video.ended && !this.live && !this.isLed) return this.goOn();
    try {
      await this.video.play();
    } catch (error) {
      // Browsers may forbid autoplay, and a new window aborts play(). Neither is a fault.
      if ((error as Error).name === "NotAllowedError") this.listener.said("press play to start");
    }
  }

  private async open(begin: number, end: number, at: number, play: boolean, isContinued = false): Promise<void> {
    // The server knows no times before 1970.
    const [from, to] = [Math.max(0, begin), Math.max(WINDOW, end)];
    [this.from, this.to, this.live] = [from, to, false];
    [this.isEmpty, this.isComing] = [false, true];
    await this.source(`/hls/index.m3u8?${new URLSearchParams({ camera: this.camera, from: iso(from), to: iso(to) })}`, at, play, isContinued);
  }

  /** Loads a playlist and shows it from an instant on. With `isContinued` the recording before it was already shown, and is not shown again. */
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
    // The worker is a file: the page's policy (`worker-src 'self'`) blocks the blob that hls.js would make of it.
    const hls = new Hls({ autoStartLoad: false, workerPath: "/assets/hls.worker.js", backBufferLength: 120, maxBufferLength: 30, xhrSetup: byScript });
    this.coming?.destroy();
    this.coming = hls;
    // The old picture stays until the new playlist is loaded.
    hls.once(Hls.Events.LEVEL_LOADED, (_, { details }) => {
      const segments = details.fragments.map(segment);
      if (this.live && !this.isLed && at !== undefined && segments.at(-1)?.at === this.lost?.at) {
        // The segment that cannot be played is still the newest. Reload the playlist until the next one is there, and do not request this one again.
        this.isComing = false;
        return void setTimeout(() => turn === this.turn && void this.follow(at, !this.video.paused), AGAIN);
      }
      if (this.endsBefore(segments, at)) {
        // Nothing in the window is at or after the instant: the old picture stays while the search runs.
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
    // hls.js corrects the playlist's times by those in the media.
    hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => {
      if (this.hls === hls) this.segments = details.fragments.map(segment);
    });
    // An init segment has no position in the playlist: if it fails, the lost segment is the one that it was loaded for.
    let wanted: Segment | undefined;
    hls.on(Hls.Events.FRAG_LOADING, (_, { frag }) => {
      if (frag.sn !== "initSegment") wanted = segment(frag);
    });
    hls.on(Hls.Events.ERROR, (_, data) => {
      // No HTTP status at all: the bucket's CORS rules or the network may have blocked a redirect to it.
      const unanswered = data.type === Hls.ErrorTypes.NETWORK_ERROR && data.frag !== undefined && !data.response?.code;
      if (unanswered && !proxied) void this.comeByProxy(address, at, play, turn);
      // hls.js would repeat the request for half a minute.
      if (data.frag && data.response?.code === 404) return this.goOver(hls, turn, wanted, "a piece is not in the bucket any more");
      // Another request would get the same answer.
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
        // A window that never loaded is requested again for the instant it was wanted for; a loaded one for the picture that is shown by then.
        else this.tryAgain(address, this.coming === hls ? () => ({ at, play }) : this.asShown(at), turn, error, isContinued);
      }
      if (this.coming === hls) {
        this.coming = undefined;
        hls.destroy();
      }
    });
    hls.loadSource(delivered(address));
  }

  /** Marks the requested window as the one that is shown. */
  private showing(segments: Segment[]): void {
    this.segments = segments;
    this.isComing = false;
    this.shown = { from: this.from, to: this.to, live: this.live };
  }

  /** Returns the wish to keep the current state: its picture and whether it plays, read when the window is requested again. */
  private asShown(otherwise: number | undefined): () => Wish {
    return () => ({ at: this.at() ?? otherwise, play: !this.video.paused });
  }

  /** Returns whether all recordings of a window end before the wanted instant. Never so for live or led players. */
  private endsBefore(segments: Segment[], at: number | undefined): boolean {
    return at !== undefined && !this.live && !this.isLed && !segmentAt(segments, at);
  }

  /** Goes to the first recording after an instant, outside of the window. Calls `otherwise` if nothing follows. */
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

  /** Skips a chunk that was deleted after the playlist was made, or that cannot be played. Says why. */
  private goOver(hls: HlsClass, turn: number, lost: Segment | undefined, why: string): void {
    if (!lost || this.lost?.turn === turn) return;
    this.listener.said(`${why}; ${ON}`);
    this.lost = { at: lost.at, turn };
    hls.stopLoad();
    setTimeout(() => this.goBehind(hls, turn, lost, why), 500);
  }

  /** Continues after the lost segment, once the buffered part before it was shown. */
  private goBehind(hls: HlsClass, turn: number, lost: Segment, why: string): void {
    if (turn !== this.turn) return;
    const left = this.left();
    // Wait while something buffered is left: so a paused player keeps its picture.
    if (left > 0.1) return void setTimeout(() => this.goBehind(hls, turn, lost, why), Math.min(1000, Math.max(100, (left * 1000) / this.video.playbackRate)));
    // Within 250 ms behind a segment (`maxFragLookUpTolerance`) hls.js may load that segment again: begin later than that.
    const end = ends(lost) + 400;
    if (this.isLed && !segmentAt(this.segments, end)) return this.rests(hls, turn);
    this.note = why;
    const play = !this.isLed && !this.video.paused;
    if (this.live && !this.isLed) void this.follow(end, play);
    else void this.open(end - LEAD, end - LEAD + WINDOW, end, play, true);
  }

  /** Loads nothing until the clock seeks: no segment follows the lost one in this playlist. */
  private rests(hls: HlsClass, turn: number): void {
    const goOn = () => {
      if (turn !== this.turn) return;
      this.lost = undefined;
      hls.startLoad(this.video.currentTime);
    };
    this.video.addEventListener("seeking", goOn, { once: true });
  }

  /** Returns how much of the buffer is still to be shown, s. */
  private left(): number {
    const now = this.video.currentTime;
    // Ignore holes up to 0.1 s: hls.js skips them (`maxBufferHole`).
    return ranges(this.video.buffered).reduce((end, [from, to]) => (from <= end + 0.1 ? Math.max(end, to) : end), now) - now;
  }

  /** Repeats a request after a failure of the bucket or the network, unless another one replaced it. A led player is asked again by its clock. */
  private tryAgain(address: string, wish: () => Wish, turn: number, error: Error, isContinued: boolean): void {
    if (this.isLed) return;
    const again = () => {
      if (turn !== this.turn) return;
      const { at, play } = wish();
      // A live playlist would continue at its end. If the player is paused, load the window of its picture instead.
      if (this.live && !play && at !== undefined) void this.open(at - LEAD, at - LEAD + WINDOW, at, false);
      else void this.source(address, this.live ? undefined : at, play, isContinued);
    };
    if (error instanceof ApiError && error.status === 401) void loggedIn().then(again);
    else if (!(error instanceof ApiError && isFinal(error.status))) onceSeen(again, AGAIN);
  }

  /** Loads the playlist again with media from the server, if they are redirected to the bucket. */
  private async comeByProxy(address: string, at: number | undefined, play: boolean, turn: number): Promise<void> {
    const about = await get<About>("/api/about").catch(() => undefined);
    if (about?.delivery !== "redirect" || turn !== this.turn) return;
    byProxy = true;
    await this.source(address, this.live ? undefined : (this.at() ?? at), play);
  }

  /** Plays by the browser's own HLS. hls.js needs Media Source Extensions, which Safari on iPhones may lack. */
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
    // A led player must not show an older window as if it were the clock's.
    if (this.isLed) this.segments = [];
    if (error instanceof ApiError && error.status === 401) askForToken();
    else if (this.live && !this.isLed && error instanceof ApiError && isFinal(error.status)) {
      // There is nothing live: the window that was shown before goes on.
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

  /** Returns where to start loading, seconds; -1 leaves the choice to hls.js. */
  private start(at: number | undefined): number {
    return at === undefined ? -1 : (this.position(at) ?? this.segments.at(-1)?.start ?? -1);
  }

  /** Returns the position of an instant in the playlist, seconds. In a gap, that of the next segment; reports the skipped time then. */
  private position(at: number): number | undefined {
    const next = segmentAt(this.segments, at);
    if (!next) return undefined;
    this.listener.said(next.at - at > 1000 ? { at, until: next.at } : "");
    return next.start + Math.max(0, at - next.at) / 1000;
  }

  private tell = (): void => {
    // Another instant is requested: the position of the old picture must not be reported.
    if (this.isComing || this.isSearching) return;
    const at = this.at();
    if (at !== undefined) this.listener.moved(at, !this.video.paused);
  };

  /** Loads the next window at the end of one, if anything follows. */
  private goOn = (): void => {
    const latest = latestEnd(this.segments);
    if (this.live || this.isLed || latest === undefined) return;
    // Times are rounded: the recording may end up to a millisecond later than the playlist says.
    const end = latest + 1;
    // The last continuation brought less than a second: accept only what begins later, or the same end would be found again.
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
