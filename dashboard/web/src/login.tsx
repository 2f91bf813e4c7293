// Swaps the token for a cookie.
import { useState } from "preact/hooks";
import { logIn } from "./api";

/** Has the login shown, where an answer says that it is needed. */
export const askForToken = () => dispatchEvent(new Event("log-in"));

/** What is shown where no token helps. */
export function LoadAnew() {
  return (
    <main class="login">
      <h1>Cameras</h1>
      <p role="alert">Your session has ended.</p>
      <button type="button" onClick={() => location.reload()}>Log in again</button>
    </main>
  );
}

export function LogIn({ done }: { done: () => void }) {
  const [fault, setFault] = useState("");
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
    <main class="login">
      <h1>Cameras</h1>
      <form onSubmit={submit}>
        <label for="token">Token</label>
        <input id="token" name="token" type="password" autocomplete="current-password" required />
        <button type="submit">Log in</button>
        <p role="alert">{fault}</p>
      </form>
    </main>
  );
}
