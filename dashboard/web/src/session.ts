// Who may see this: what an answer of 401 leads to, and what goes on after the login.

/** Has the login shown, where an answer says that it is needed. */
export const askForToken = (): boolean => dispatchEvent(new Event("log-in"));

/** Tells who waits for it that questions are answered again. */
export const letIn = (): boolean => dispatchEvent(new Event("logged-in"));

/** Waits for the login. */
export const loggedIn = (): Promise<void> => new Promise((done) => addEventListener("logged-in", () => done(), { once: true }));
