// The newest picture of a camera, on its card.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Camera } from "./api";
import { iso } from "./time";

/**
 * Shows the newest picture while the card is in view. A picture that is loading is never replaced by a newer one: else a slow picture would never be
 * shown. The old one stays until then.
 */
export function Picture({ camera }: { camera: Camera }) {
  const box = useRef<HTMLDivElement>(null);
  const [isSeen, setSeen] = useState(false);
  const [shown, setShown] = useState<string | null>(null);
  const [coming, setComing] = useState<string | null>(null);
  const [broken, setBroken] = useState<string | null>(null);
  useEffect(() => {
    if (!box.current) return;
    const observer = new IntersectionObserver((entries) => setSeen(entries.some((entry) => entry.isIntersecting)));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  // One second before the end is inside the newest chunk.
  const at = camera.last_stored && iso(Date.parse(camera.last_stored) - 1000);
  useEffect(() => {
    // When the card comes into view again, load only the newest picture, not the old one first.
    if (!isSeen) [setComing, setShown].forEach((set) => set(null));
    else if (at && !coming && at !== shown && at !== broken) setComing(at);
  }, [isSeen, at, coming, shown, broken]);
  const loaded = () => {
    setShown(coming);
    setBroken(null);
    setComing(null);
  };
  const failed = (t: string) => {
    setBroken(t);
    if (t === coming) setComing(null);
    else setShown(null);
  };
  const videos = isSeen ? [broken ? null : shown, coming].flatMap((t) => t ?? []) : [];
  return (
    <div class="picture" ref={box}>
      {videos.map((t) => (
        <video
          key={t} class={t === coming ? "coming" : ""} src={`/preview?${new URLSearchParams({ camera: camera.id, t })}`}
          muted playsInline preload="auto" tabIndex={-1} aria-hidden="true"
          onLoadedData={() => t === coming && loaded()} onError={() => failed(t)}
        />
      ))}
      {!at && <span class="quiet">no picture</span>}
      {at && broken && <span class="quiet">no picture can be shown</span>}
    </div>
  );
}
