// Plays a camera by the clock: instants in, instants out. One window of three hours is one playlist; the next follows at its end.
import type HlsClass from "hls.js";
import type { Fragment } from "hls.js";
import { HOUR, iso } from "./time";

/** How much of the past a window holds, so that going back is no new window. */
const LEAD = HOUR;
const WINDOW = 3 * HOUR;

export interface Listener {
  /** The instant that is shown, and whether it plays. */
  moved(at: number, playing: boolean): void;
  /** Something to tell; empty: nothing any more. */
  said(text: string): void;
}

type Loaded = { Hls: typeof HlsClass };
let loaded: Promise<Loaded> | undefined;
// esbuild leaves the address alone: it is a file of its own.
const load = (): Promise<Loaded> => (loaded ??= import("/assets/hls.js" as string).then((module) => ({ Hls: module.default })));

export class Player {
  private hls: HlsClass | undefined;
  private fragments: Fragment[] = [];
  private from = 0;
  private to = 0;
  private live = false;
  private turn = 0;
  /** Where it is to go as soon as the playlist is there. */
  private wanted: number | undefined;

  constructor(private readonly video: HTMLVideoElement, private readonly camera: string, private readonly listener: Listener) {
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
    this.hls?.destroy();
  }

  /** The instant that is shown. */
  at(): number | undefined {
    const time = this.video.currentTime;
    const fragment = this.fragments.find((f) => time >= f.start && time < f.start + f.duration) ?? this.fragments.at(-1);
    return fragment?.programDateTime ? fragment.programDateTime + (time - fragment.start) * 1000 : undefined;
  }

  isLive(): boolean {
    return this.live;
  }

  /** Shows the instant, or the first one after it that is stored. */
  async seek(at: number, play = true): Promise<void> {
    if (!this.live && this.fragments.length > 0 && at >= this.from && at < this.to) {
      const position = this.position(at);
      if (position !== undefined) {
        this.video.currentTime = position;
        if (play) void this.play();
        return;
      }
    }
    await this.open(at - LEAD, at - LEAD + WINDOW, at, play);
  }

  /** Follows the running recording. */
  async follow(): Promise<void> {
    this.live = true;
    await this.source(`/hls/live.m3u8?${new URLSearchParams({ camera: this.camera })}`, undefined, true);
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
    await this.source(`/hls/index.m3u8?${new URLSearchParams({ camera: this.camera, from: iso(from), to: iso(to) })}`, at, play);
  }

  private async source(address: string, at: number | undefined, play: boolean): Promise<void> {
    const turn = ++this.turn;
    this.fragments = [];
    this.wanted = at;
    const { Hls } = await load();
    if (turn !== this.turn) return;
    this.hls?.destroy();
    this.hls = undefined;
    this.listener.said("");
    if (!Hls.isSupported()) {
      this.video.src = address;
      if (play) void this.play();
      return;
    }
    const hls = new Hls({ autoStartLoad: false, workerPath: "/assets/hls.worker.js", backBufferLength: 120, maxBufferLength: 30 });
    this.hls = hls;
    hls.on(Hls.Events.LEVEL_UPDATED, (_, { details }) => {
      this.fragments = details.fragments;
    });
    hls.on(Hls.Events.LEVEL_LOADED, (_, { details }) => {
      const first = this.fragments.length === 0;
      this.fragments = details.fragments;
      if (!first) return;
      const position = this.wanted === undefined ? -1 : (this.position(this.wanted) ?? details.fragments.at(-1)?.start ?? -1);
      hls.startLoad(position);
      if (position >= 0) this.video.currentTime = position;
      if (play) void this.play();
    });
    hls.on(Hls.Events.ERROR, (_, data) => {
      if (!data.fatal) return;
      const status = data.response?.code;
      if (status === 401) dispatchEvent(new Event("log-in"));
      else if (status === 404) this.listener.said("nothing is recorded here");
      else if (data.type === Hls.ErrorTypes.MEDIA_ERROR) {
        this.listener.said(`this browser cannot play it (${data.details}); the recording can be downloaded and played elsewhere`);
        if (data.details !== Hls.ErrorDetails.BUFFER_ADD_CODEC_ERROR) hls.recoverMediaError();
      } else this.listener.said(`it cannot be loaded (${data.details})`);
    });
    hls.attachMedia(this.video);
    hls.loadSource(address);
    // Without autoStartLoad the playlist itself is asked for by hand.
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      hls.loadLevel = 0;
      hls.startLoad(-1, true);
    });
  }

  /** Where an instant lies in the playlist, seconds. In a gap: where it goes on. */
  private position(at: number): number | undefined {
    for (const fragment of this.fragments) {
      const begins = fragment.programDateTime;
      if (begins === null || at >= begins + fragment.duration * 1000) continue;
      if (begins - at > 1000) this.listener.said(`nothing is recorded here; it goes on ${new Date(begins).toLocaleTimeString()}`);
      else this.listener.said("");
      return fragment.start + Math.max(0, at - begins) / 1000;
    }
    return undefined;
  }

  private tell = (): void => {
    const at = this.at();
    if (at !== undefined) this.listener.moved(at, !this.video.paused);
  };

  /** At the end of a window: the next one, if anything follows. */
  private goOn = (): void => {
    const last = this.fragments.at(-1);
    if (this.live || !last?.programDateTime) return;
    const end = last.programDateTime + last.duration * 1000;
    void this.open(end, end + WINDOW, end, true);
  };
}
