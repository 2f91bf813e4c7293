// The state of all cameras: from server-sent events, or by polling while none arrive.
import { useEffect, useState } from "preact/hooks";
import { ApiError, type Camera, get } from "./api";
import { now } from "./now";
import { askForToken } from "./session";

/** How often to check whether anything arrived, ms. */
const LOOK = 10_000;
/** How long without an event before the cameras are polled, ms. Events come every 10 s, and every 20 s while the bucket does not answer. */
const SILENCE = 25_000;
/** Time limit of a request, ms. The server waits 10 s for the bucket: its error must arrive before this limit. */
const PATIENCE = 15_000;

export interface News {
  cameras: Camera[] | null;
  /** The latest error; `null` once cameras arrive again. */
  trouble: ApiError | null;
  /** Since when no cameras arrived, by the server's clock; `null` while they do. */
  silent: number | null;
}

/** The latest cameras and when they arrived, by this device's clock. Kept so that the first screen shows them at once when it is opened again. */
let kept: { cameras: Camera[]; at: number } | undefined;

const LATE = new ApiError(0, `the dashboard has not answered for ${PATIENCE / 1000} s`, "It is asked again. Is it running, and is this device on the network?");

export function useNews(): News {
  const [news, setNews] = useState<News>({ cameras: kept?.cameras ?? null, trouble: null, silent: null });
  useEffect(() => {
    const change = (part: Partial<News>) => setNews((known) => ({ ...known, ...part }));
    // Times of: the latest cameras, the latest answer of any kind, the latest connection, and when the page was last shown or became visible.
    let [last, heard, opened, seen] = [kept?.at ?? Date.now(), Date.now(), 0, Date.now()];
    let isAsking = false;
    const show = (cameras: Camera[]) => {
      heard = last = Date.now();
      kept = { cameras, at: last };
      setNews({ cameras, trouble: null, silent: null });
    };
    const failed = (error: Error) => {
      if (error instanceof ApiError && error.status === 401) return void askForToken();
      const isAnswered = error instanceof ApiError && error.status > 0;
      if (isAnswered) heard = Date.now();
      // Without any answer, and with cameras on the screen, `silent` already reports it.
      if (isAnswered || !kept) change({ trouble: error instanceof ApiError ? error : LATE });
    };
    const ask = () => {
      if (isAsking) return;
      isAsking = true;
      void get<Camera[]>("/api/cameras", {}, AbortSignal.timeout(PATIENCE)).then(show, failed).then(() => (isAsking = false));
    };
    let events: EventSource | undefined;
    const close = () => {
      events?.close();
      events = undefined;
    };
    const listen = () => {
      close();
      ask();
      opened = Date.now();
      events = new EventSource("/api/events");
      events.addEventListener("cameras", (event) => show(JSON.parse((event as MessageEvent).data)));
      events.addEventListener("trouble", (event) => {
        const { error, hint } = JSON.parse((event as MessageEvent).data);
        heard = Date.now();
        change({ trouble: new ApiError(0, String(error), String(hint ?? "")) });
      });
    };
    const looked = () => {
      // A hidden page costs no list requests: the server asks the bucket only while somebody listens.
      if (document.hidden) return close();
      seen = heard = Date.now();
      listen();
    };
    if (!document.hidden) listen();
    const timer = setInterval(() => {
      if (document.hidden) return;
      const silence = Date.now() - last;
      // After a hidden page is shown again, give the first answer time to arrive.
      if (silence >= SILENCE && Date.now() - seen >= SILENCE) change({ silent: now() - silence });
      if (Date.now() - heard < SILENCE) return;
      // A proxy may buffer the events, or the connection may have broken unnoticed. Reconnect, at most once per SILENCE; poll in between.
      if (Date.now() - opened >= SILENCE) listen();
      else ask();
    }, LOOK);
    document.addEventListener("visibilitychange", looked);
    addEventListener("logged-in", listen);
    return () => {
      document.removeEventListener("visibilitychange", looked);
      removeEventListener("logged-in", listen);
      close();
      clearInterval(timer);
    };
  }, []);
  return news;
}
