/**
 * pgfanout's client: a page follows a stream and is never stale. docs/page.md explains the options and the states.
 *
 *   import { Feed } from "/_pgfanout/pgfanout.js";
 *   new Feed({
 *     url: "/events",                                    // where fanout.stream() answers
 *     types: ["order.updated"],                          // the types of the events
 *     load: (signal) => fetch("/orders", { signal }),    // gets the current state
 *     onState: (orders) => …,                            // replaces the state that is shown
 *     onEvent: (type, payload) => …,                     // shows a change
 *   }).open();
 *
 * One ES module without dependencies and without a build step, for browsers from 2024 on.
 */

/**
 * @typedef {import("./pgfanout.js").FeedOptions} FeedOptions
 * @typedef {{ type: string, data?: string, id?: string }} Message  What a feed receives
 * @typedef {(message: Message) => void} Receive
 * @typedef {ReturnType<typeof setTimeout> | undefined} Timer
 */

// Times are milliseconds.
const SETTLE = 50; // a load waits so long for other reasons to load
const NO_STREAM_YET = 5_000; // then the page gets its state, stream or not
const LOAD_TIMEOUT = 10_000; // of the first try. It doubles with each one
const LONGEST_TIMEOUT = 60_000;
const FIRST_WAIT = 300;
const LONGEST_WAIT = 10_000;

// Types of messages that are not for the page. Applications can't publish types that begin like this.
const CURSOR = "pgfanout.cursor"; // from the server: only an id to remember
const BEGAN = "pgfanout.began"; // a connection is open
const LOST = "pgfanout.lost";
const EXPIRED = "pgfanout.expired";

const REFUSED = [204, 401, 403];

export class Feed {
  /** @type {FeedOptions & { types: string[] }} */
  #page;
  #cursor = "";
  /** Ends with close(). @type {AbortController | null} */
  #life = null;
  /** Ends the stream. @type {(() => void) | null} */
  #end = null;
  #live = false;
  /** Whether the page needs a load that has not begun yet. */
  #owed = false;
  /** Set while a load is wanted. Aborted by close(). @type {AbortController | null} */
  #loading = null;
  /** Events that came during a load. @type {[string, unknown][]} */
  #held = [];
  /** @type {Timer} */
  #late;

  /** @param {FeedOptions} options */
  constructor({ types = ["message"], ...page }) {
    if (!Array.isArray(types)) throw new TypeError("pgfanout: `types` has to be an array of event types");
    if (typeof page.load !== "function") throw new TypeError("pgfanout: `load` has to be a function");
    this.#page = { ...page, types };
    this.#cursor = page.cursor ?? "";
  }

  /** Open the stream. Does nothing while it is open. */
  open() {
    if (this.#life) return;
    this.#life = new AbortController();
    const how = { signal: this.#life.signal, capture: true };
    // A page in the back/forward cache or a frozen one hears nothing, so it must not keep a connection.
    for (const type of ["pagehide", "freeze"]) addEventListener(type, () => this.#stop(), how);
    for (const type of ["pageshow", "resume"]) addEventListener(type, () => this.#start(), how);
    this.#start();
  }

  /** Close the stream and give up a load. Idempotent. open() continues after the last event. */
  close() {
    this.#life?.abort();
    this.#life = null;
    this.#stop();
  }

  #start() {
    if (this.#end) return;
    const url = new URL(this.#page.url, document.baseURI).href;
    this.#end = follow(url, this.#page.types, () => this.#cursor, (message) => this.#receive(message));
    if (!this.#cursor) this.#late = setTimeout(() => this.#load(), NO_STREAM_YET);
  }

  #stop() {
    clearTimeout(this.#late);
    this.#end?.();
    this.#end = null;
    this.#live = false;
    this.#loading?.abort();
    this.#loading = null;
  }

  /** @type {Receive} */
  #receive({ type, data, id }) {
    if (!this.#end) return;
    // A refresh may come before any id. Then the cursor stays valid: the lost events are after it.
    if (id) this.#cursor = id;
    if (type === BEGAN) this.#began();
    else if (type === LOST) this.#lost();
    else if (type === EXPIRED) this.#expire();
    else if (type === "refresh") this.#refresh();
    else if (type !== CURSOR) this.#show(type, data ?? "");
  }

  // Without a cursor the state is loaded once the stream is open, not before. Every later commit arrives as an event, so
  // no change is missed between the two. With a cursor, the server sends a refresh if it can't continue there.
  #began() {
    clearTimeout(this.#late);
    this.#live = true;
    if (this.#owed || !this.#cursor) this.#load();
    else if (!this.#loading) this.#call("onStatus", "live");
  }

  #lost() {
    this.#live = false;
    this.#call("onStatus", "reconnecting");
  }

  #expire() {
    this.close();
    this.#call("onStatus", "expired");
    this.#call("onExpired");
  }

  #refresh() {
    this.#call("onStatus", "refreshing");
    this.#load();
  }

  /** @param {string} type @param {string} data */
  #show(type, data) {
    let payload;
    try {
      payload = JSON.parse(data);
    } catch (error) {
      console.error(`pgfanout: an event "${type}" of ${this.#page.url} is not JSON. Loading instead.`, error);
      this.#refresh();
      return;
    }
    // A state that is being loaded may be older or newer than the event, so hold the event until it is there.
    if (this.#loading) this.#held.push([type, payload]);
    else this.#call("onEvent", type, payload);
  }

  // One load at a time. Any number of reasons to load during a load cause one more load after it.
  async #load() {
    this.#owed = true;
    if (this.#loading) return;
    const { signal } = (this.#loading = new AbortController());
    for (let failures = 0; this.#owed; ) {
      await new Promise((resolve) => setTimeout(resolve, failures ? backoff(failures) : SETTLE));
      if (signal.aborted) return;
      this.#owed = false;
      this.#held = []; // events that came before the load begins are in its result
      try {
        const state = await this.#ask(signal, failures);
        failures = 0;
        this.#call("onState", state);
        for (const event of this.#held) this.#call("onEvent", ...event);
      } catch (error) {
        failures += 1;
        this.#owed = true;
        if (signal.aborted) return;
        console.warn(`pgfanout: a load for ${this.#page.url} failed and will be retried.`, error);
        if (hintsAtLogin(error) && (await isExpired(this.#page.url)) && !signal.aborted) return this.#expire();
      }
    }
    this.#loading = null;
    if (this.#live) this.#call("onStatus", "live");
  }

  // Waits neither for a load() that never answers nor for one that close() has given up.
  /** @param {AbortSignal} closing @param {number} failures */
  #ask(closing, failures) {
    const timeout = AbortSignal.timeout(Math.min(LONGEST_TIMEOUT, LOAD_TIMEOUT * 2 ** failures));
    const signal = AbortSignal.any([closing, timeout]);
    const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    return Promise.race([this.#answer(signal), aborted]);
  }

  // load() may return a Response. Then its status counts, and its body is JSON.
  /** @param {AbortSignal} signal */
  async #answer(signal) {
    const answer = await this.#page.load(signal);
    if (!(answer instanceof Response)) return answer;
    const { url, status } = answer;
    if (!answer.ok) throw Object.assign(new Error(`${url} answered ${status}`), { status });
    return answer.json();
  }

  // An error of the page's own is reported like any other uncaught error, and the feed goes on.
  /** @param {"onState" | "onEvent" | "onStatus" | "onExpired"} name @param {any[]} values */
  #call(name, ...values) {
    try {
      /** @type {Function | undefined} */ (this.#page[name])?.(...values);
    } catch (error) {
      reportError(error);
    }
  }
}

/**
 * Follow a stream with an EventSource that comes back after everything but the end of the session. Return what stops it.
 * @param {string} url @param {string[]} types @param {() => string} cursor @param {Receive} receive
 */
function follow(url, types, cursor, receive) {
  /** @type {EventSource | undefined} */
  let source;
  /** @type {Timer} */
  let timer;
  let began = false;
  let failures = 0;

  function begin() {
    clearTimeout(timer);
    if (!began) receive({ type: BEGAN });
    began = true;
  }

  function lose() {
    clearTimeout(timer);
    began = false;
    receive({ type: LOST });
  }

  function start() {
    // An EventSource that reconnects sends its last id in a header, which takes precedence over this parameter. A new
    // EventSource has no last id.
    const address = new URL(url);
    if (cursor()) address.searchParams.set("last_event_id", cursor());
    const mine = (source = new EventSource(address));

    // What an application publishes with the type "open" or "error" is a MessageEvent.
    mine.addEventListener("open", (event) => {
      if (event instanceof MessageEvent) return;
      failures = 0;
      timer = setTimeout(begin, SETTLE); // usually the stream's first message comes at once
    });

    // After a network error the browser reconnects by itself. A redirect to another site is such an error to it. After a
    // response that is not a stream, such as a proxy's 502 during a deploy, it gives up for good.
    mine.addEventListener("error", async (event) => {
      if (event instanceof MessageEvent) return;
      failures += 1;
      lose();
      const gaveUp = mine.readyState === EventSource.CLOSED;
      if (mine !== source || !(gaveUp || failures > 1)) return;
      const expired = await isExpired(url);
      if (mine !== source) return;
      if (expired) receive({ type: EXPIRED });
      else if (gaveUp) timer = setTimeout(start, backoff(failures));
    });

    // The server shuts down. It has told the browser when to reconnect, and the browser will.
    mine.addEventListener("close", lose);

    for (const type of new Set([...types, "refresh", CURSOR])) {
      mine.addEventListener(type, (event) => {
        if (!(event instanceof MessageEvent)) return;
        begin();
        receive({ type, data: event.data, id: event.lastEventId });
      });
    }
  }

  start();
  return () => {
    clearTimeout(timer);
    source?.close();
    source = undefined;
  };
}

/**
 * Whether the server refuses the stream because the session has expired: with 204, 401, 403, or with a redirect to
 * something that is no stream. An EventSource does not show the status. HEAD opens no stream on the server.
 * @param {string} url
 */
async function isExpired(url) {
  /** @param {RequestInit} how */
  const ask = (how) => {
    const signal = AbortSignal.timeout(LOAD_TIMEOUT);
    return fetch(url, { method: "HEAD", headers: { Accept: "text/event-stream" }, cache: "no-store", signal, ...how });
  };
  try {
    let answer = await ask({});
    if ([405, 501].includes(answer.status)) {
      answer = await ask({ method: "GET" });
      answer.body?.cancel();
    }
    const { status, redirected, headers } = answer;
    const isStream = headers.get("Content-Type")?.startsWith("text/event-stream");
    return REFUSED.includes(status) || (redirected && status < 500 && !isStream);
  } catch {
    // Nobody answers, or the redirect leads to another site, where a script may not follow it.
    return ask({ redirect: "manual" }).then(({ type }) => type === "opaqueredirect", () => false);
  }
}

// load() got a login page instead of JSON, or was refused.
/** @param {any} error */
function hintsAtLogin(error) {
  return error instanceof SyntaxError || REFUSED.includes(error?.status);
}

// With jitter, so that pages don't retry together.
/** @param {number} failures 1 or more */
function backoff(failures) {
  return Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1)) * (0.5 + Math.random() / 2);
}
