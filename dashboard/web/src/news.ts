// The state of all cameras: by events, and by questions where no events come.
import { useEffect, useState } from "preact/hooks";
import { ApiError, type Camera, get } from "./api";
import { now } from "./now";
import { askForToken } from "./session";

/** How often it is looked whether anything came, ms. */
const LOOK = 10_000;
/** Events come every ten seconds, and every twenty from a bucket that does not answer: after so long without one the board is asked for, ms. */
const SILENCE = 25_000;
/** How long an answer is waited for, ms: clearly longer than the server waits for the bucket (10 s), so that what it says of that arrives. */
const PATIENCE = 15_000;

export interface News {
  cameras: Camera[] | null;
  /** What is wrong. */
  trouble: ApiError | null;
  /** Since when no cameras came; null while they do. */
  silent: number | null;
}

/** What came last, and when: who comes back to the first screen sees it at once. */
let kept: { cameras: Camera[]; at: number } | undefined;

const LATE = new ApiError(0, `the dashboard has not answered for ${PATIENCE / 1000} s`, "It is asked again. Is it running, and is this device on the network?");

export function useNews(): News {
  const [news, setNews] = useState<News>({ cameras: kept?.cameras ?? null, trouble: null, silent: null });
  useEffect(() => {
    const change = (part: Partial<News>) => setNews((known) => ({ ...known, ...part }));
    // When cameras came, anything came, the events were asked for, and somebody began to look.
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
      // Else nothing is known but that no news come, which is told of what is shown.
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
      // Nobody looks: the bucket need not be asked.
      if (document.hidden) return close();
      seen = heard = Date.now();
      listen();
    };
    if (!document.hidden) listen();
    const timer = setInterval(() => {
      if (document.hidden) return;
      const silence = Date.now() - last;
      // Who looks again gets the time of an answer first.
      if (silence >= SILENCE && Date.now() - seen >= SILENCE) change({ silent: now() - silence });
      if (Date.now() - heard < SILENCE) return;
      // A proxy that holds events back, or a connection that ended without a word.
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
