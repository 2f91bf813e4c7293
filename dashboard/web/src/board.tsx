// The first screen: the state of all cameras, those in trouble first.
import { useEffect, useState } from "preact/hooks";
import { useAnswer } from "./answer";
import { type About, type Camera, type CameraGap, get } from "./api";
import { CameraLink, addressOf, followed } from "./link";
import { HOUR, MINUTE, clock, date, iso, moment, readable, span } from "./time";
import { useNews } from "./news";
import { now } from "./now";
import { Picture } from "./picture";
import { MOST } from "./together";
import { Fault } from "./viewing";
import { BADGES, reason } from "./words";

/** How often the footer is updated, ms. */
const POLL = 30_000;
/** How often the gaps are requested, ms. */
const GAPS = 5 * MINUTE;

/** How far back "What happened" looks, ms. */
const TONIGHT = 12 * HOUR;

/** The cameras chosen to be shown together. Kept so that they are still chosen when the first screen is opened again. */
let kept: string[] = [];

export function Board() {
  const { cameras, trouble, silent } = useNews();
  const [chosen, set] = useState(kept);
  const setChosen = (ids: string[]) => set((kept = ids));
  useEffect(() => {
    document.title = "Cameras";
  }, []);
  return (
    <>
      <header class="top">
        <h1 tabIndex={-1}>Cameras</h1>
        {cameras && <Summary cameras={cameras} />}
      </header>
      <main>
        {trouble && (
          <section class="trouble" role="alert">
            <strong>The bucket cannot be shown:</strong> {trouble.message}
            {trouble.hint && <p>{trouble.hint}</p>}
          </section>
        )}
        {silent !== null && <p class="trouble" role="alert">No news since {moment(silent, now())}{cameras && ": what is shown is how it was then"}. The dashboard is asked again.</p>}
        {!cameras && !trouble && <p class="quiet">Looking into the bucket…</p>}
        {cameras?.length === 0 && <p class="quiet">The bucket holds no recordings of gcssink under the names of --location.</p>}
        <ul class="cards">{cameras?.map((camera) => <Card key={camera.id} camera={camera} choice={cameras.length < 2 ? undefined : choice(chosen, setChosen, camera.id)} />)}</ul>
        {chosen.length > 0 && <Beside chosen={chosen} forget={() => setChosen([])} />}
        {cameras && cameras.length > 0 && <Happened names={new Map(cameras.map(({ id, name }) => [id, name]))} />}
      </main>
      <Foot isListed={cameras !== null} />
    </>
  );
}

function Summary({ cameras }: { cameras: Camera[] }) {
  const counts = new Map<Camera["badge"], number>();
  for (const { badge } of cameras) counts.set(badge, (counts.get(badge) ?? 0) + 1);
  const order = [...counts].sort(([a], [b]) => BADGES[b].rank - BADGES[a].rank);
  return <p class="summary">{order.map(([badge, count]) => `${count} ${BADGES[badge].word}`).join(" · ")}</p>;
}

interface Choice { is: boolean; isFull: boolean; toggle: () => void }

function choice(chosen: string[], set: (chosen: string[]) => void, id: string): Choice {
  const is = chosen.includes(id);
  return { is, isFull: chosen.length >= MOST, toggle: () => set(is ? chosen.filter((other) => other !== id) : [...chosen, id]) };
}

/** A link that shows the chosen cameras together. */
function Beside({ chosen, forget }: { chosen: string[]; forget: () => void }) {
  return (
    <p class="beside" role="status">
      {chosen.length < 2 ? "Choose one more camera" : <a href={addressOf(chosen)} onClick={followed}>Watch {chosen.length} cameras on one clock</a>}
      <button type="button" class="plain" onClick={forget}>None</button>
    </p>
  );
}

/** Returns whether the reason already says how old the newest recording is. */
const isInReason = (camera: Camera): boolean => camera.badge === "unknown" && camera.last_stored !== null && camera.reason.startsWith("nothing stored");

function Card({ camera, choice }: { camera: Camera; choice: Choice | undefined }) {
  const { icon, word } = BADGES[camera.badge];
  return (
    <li class={`card ${camera.badge}`}>
      <CameraLink camera={camera.id}>
        <Picture camera={camera} />
        <span class="name">{camera.name}</span>
      </CameraLink>
      <p class="badge">
        <span aria-hidden="true">{icon}</span> {word}
        {camera.age_s !== null && !isInReason(camera) && <span class="quiet"> · stored up to {span(camera.age_s)} ago</span>}
      </p>
      {camera.reason && <p class="reason">{isInReason(camera) && camera.last_stored ? `nothing stored for ${span(camera.age_s ?? 0)}, since ${clock(Date.parse(camera.last_stored))}, ${date(Date.parse(camera.last_stored))}` : readable(camera.reason)}</p>}
      {camera.missing_s_today !== null && camera.missing_s_today > 0 && <p class="missing">{span(camera.missing_s_today)} missing today</p>}
      {camera.backlog_s !== null && camera.backlog_s > 0 && <p class="missing">the oldest recording has waited {span(camera.backlog_s)} for its upload</p>}
      {choice && camera.badge !== "never-seen" && (
        <label class="check quiet"><input type="checkbox" checked={choice.is} disabled={!choice.is && choice.isFull} onChange={choice.toggle} /> beside others<span class="unseen">: {camera.name}</span></label>
      )}
    </li>
  );
}

function Happened({ names }: { names: Map<string, string> }) {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setTurn((known) => known + 1), GAPS);
    return () => clearInterval(timer);
  }, []);
  const { answer, fault } = useAnswer(`${turn}`, async (signal) => {
    const end = now();
    return { edge: end - TONIGHT, gaps: await get<CameraGap[]>("/api/gaps", { from: iso(end - TONIGHT), to: iso(end) }, signal) };
  }, { isNear: true });
  const gaps = answer?.gaps;
  const isEarlier = (gap: CameraGap) => Date.parse(gap.from) <= (answer?.edge ?? 0);
  return (
    <section class="happened">
      <h2>What happened in the last 12 hours</h2>
      <Fault what="It" fault={fault} />
      {gaps?.length === 0 && <p class="quiet">No gaps in what is stored.</p>}
      {gaps && gaps.length > 0 && (
        <table>
          <thead>
            <tr><th scope="col">Camera</th><th scope="col">Missing</th><th scope="col">From</th><th scope="col">Why</th></tr>
          </thead>
          <tbody>
            {gaps.slice(0, 10).map((gap) => (
              <tr key={gap.camera + gap.from}>
                <td><CameraLink camera={gap.camera} at={Date.parse(gap.from) - 10_000}>{names.get(gap.camera) ?? gap.camera}</CameraLink></td>
                <td>{isEarlier(gap) && "at least "}{span((Date.parse(gap.to) - Date.parse(gap.from)) / 1000)}</td>
                <td>{moment(Date.parse(gap.from), now())}{isEarlier(gap) && " or earlier"}</td>
                <td>{reason(gap.reason)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

/** The footer. A change of `isListed` updates it at once, so that it includes the list requests for the first screen. */
function Foot({ isListed }: { isListed: boolean }) {
  const [about, setAbout] = useState<About | null>(null);
  useEffect(() => {
    const ask = () => void get<About>("/api/about").then(setAbout, () => {});
    const timer = setInterval(() => document.hidden || ask(), POLL);
    ask();
    return () => clearInterval(timer);
  }, [isListed]);
  const hours = about ? Math.max(1 / 60, (now() - Date.parse(about.since)) / HOUR) : 1;
  const hourly = about ? about.list_requests / hours : 0;
  return (
    <footer>
      {about && `Bucket ${about.bucket} · ${about.list_requests} list requests since the start, ${Math.round(hourly)} an hour for ${((hourly * 0.005) / 1000).toFixed(4)} USD · version ${about.version} · `}
      <a href="/assets/licences.txt">licences</a>
    </footer>
  );
}
