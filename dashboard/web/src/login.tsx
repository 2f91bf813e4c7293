// The login, shown above the screen that needs it: exchanges the token for a cookie.
import { useEffect, useRef, useState } from "preact/hooks";
import { logIn } from "./api";

/** The dialog to reload the page, if no token helps (see `neededToEnter`). */
export function LoadAnew() {
  return (
    <section class="login" role="dialog" aria-modal="true" aria-labelledby="login">
      <h1 id="login">Cameras</h1>
      <p role="alert">Your session has ended.</p>
      <button type="button" onClick={() => location.reload()}>Log in again</button>
    </section>
  );
}

export function LogIn({ done }: { done: () => void }) {
  const [fault, setFault] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.focus(), []);
  const submit = async (event: Event) => {
    event.preventDefault();
    const token = new FormData(event.currentTarget as HTMLFormElement).get("token");
    try {
      await logIn(String(token));
      done();
    } catch (error) {
      setFault((error as Error).message);
    }
  };
  return (
    <section class="login" role="dialog" aria-modal="true" aria-labelledby="login">
      <h1 id="login">Cameras</h1>
      {!isSecureContext && <p role="note">This page came without https: the browser may not keep the login, and others on the network can read the token.</p>}
      <form onSubmit={submit}>
        <label for="token">Token</label>
        <input id="token" name="token" type="password" autocomplete="current-password" required ref={field} />
        <button type="submit">Log in</button>
        <p role="alert">{fault}</p>
      </form>
    </section>
  );
}
