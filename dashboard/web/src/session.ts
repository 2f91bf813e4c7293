// Events of the login: requests that got a 401 ask for it, and wait until it is done.

/** Shows the login. Call it when an answer is 401. */
export const askForToken = (): boolean => dispatchEvent(new Event("log-in"));

/** Notifies everything that waits in [`loggedIn`], or listens to the event, that requests are answered again. */
export const letIn = (): boolean => dispatchEvent(new Event("logged-in"));

/** Waits for the login. */
export const loggedIn = (): Promise<void> => new Promise((done) => addEventListener("logged-in", () => done(), { once: true }));
