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
 */

// Times are milliseconds.
const LOAD_TIMEOUT = 10_000; // of the first try, and so much more of each further one
const LONGEST_WAIT = 10_000;
const PULSE = 8_000; // between the questions whether the leader of shared tabs is there

// Types of messages that are not for the page. Applications can't publish types that begin like this.
const CURSOR = "pgfanout.cursor"; // from the server: only an id to remember
const BEGAN = "pgfanout.began"; // a connection is open
const LOST = "pgfanout.lost";
const EXPIRED = "pgfanout.expired";

export class Feed {
  /** @param {FeedOptions} options */
  constructor(options) {
    Object.assign(this, keepCurrent(options)); // open() and close()
  }
}

/**
 * Return the functions that open and close a feed.
 * @param {FeedOptions} page
 */
function keepCurrent(page) {
  const types = [page.types ?? "message"].flat();
  let cursor = page.cursor ?? "";
  /** @type {AbortController | null} */
  let life = null; // ends with close()
  /** @type {(() => void) | null} */
  let end = null; // ends the stream
  let live = false;
  let owed = false; // whether the page needs a load that has not begun yet
  /** @type {AbortController | null} */
  let loading = null; // set while a load is wanted
  /** @type {[string, unknown][]} */
  let held = []; // events that came during a load
  let shown = false; // whether onState() has been called

  function open() {
    if (life) return;
    life = new AbortController();
    const how = { signal: life.signal, capture: true };
    // A page in the back/forward cache or a frozen one hears nothing, so it must not keep a connection.
    for (const type of ["pagehide", "freeze"]) addEventListener(type, stop, how);
    for (const type of ["pageshow", "resume"]) addEventListener(type, start, how);
    start();
  }

  function close() {
    life?.abort();
    life = null;
    stop();
  }

  function start() {
    if (end) return;
    const url = new URL(page.url, document.baseURI).href;
    const begin = (/** @type {Receive} */ to) => follow(url, types, () => cursor, to);
    // The name has the version of what tabs post, so that a tab with an older module is left alone.
    const name = `pgfanout.1 ${JSON.stringify([page.shared, url, types.sort()])}`;
    end = page.shared && navigator.locks ? share(name, () => cursor, begin, receive) : begin(receive);
  }

  function stop() {
    end?.();
    end = null;
    live = false;
    loading?.abort();
    loading = null;
  }

  /** @type {Receive} */
  function receive({ type, data = "", id }) {
    if (!end) return;
    // A refresh may come before any id. Then the cursor stays valid: the lost events are after it.
    if (id) cursor = id;
    if (type === BEGAN) {
      // Without a cursor the state is loaded once the stream is open, not before. Every later commit arrives as an event,
      // so no change is missed between the two. With a cursor, the server sends a refresh if it can't continue there.
      live = true;
      if (owed || !cursor) load();
      else if (!loading) call("onStatus", "live");
    } else if (type === LOST) {
      live = false;
      call("onStatus", "reconnecting");
      if (!cursor && !shown) load(); // better than nothing
    } else if (type === EXPIRED) {
      close();
      call("onStatus", "expired");
      call("onExpired");
    } else if (type === "refresh") {
      call("onStatus", "refreshing");
      load();
    } else if (type !== CURSOR) show(type, data);
  }

  /** @param {string} type @param {string} data */
  function show(type, data) {
    let payload;
    try {
      payload = JSON.parse(data);
    } catch (error) {
      console.error(`pgfanout: ${page.url}: event "${type}" is not JSON, so load`, error);
      return receive({ type: "refresh" });
    }
    // A state that is being loaded may be older or newer than the event, so hold the event until it is there.
    if (loading) held.push([type, payload]);
    else call("onEvent", type, payload);
  }

  // One load at a time. Any number of reasons to load during a load cause one more load after it.
  async function load() {
    owed = true;
    if (loading) return;
    const { signal } = (loading = new AbortController());
    for (let failures = 0; owed; ) {
      // The first wait is short, and lets another reason to load come.
      await new Promise((resolve) => setTimeout(resolve, backoff(failures)));
      if (signal.aborted) return;
      owed = false;
      held = []; // events that came before the load begins are in its result
      try {
        call("onState", await ask(signal, LOAD_TIMEOUT * (failures + 1)));
        for (const event of held) call("onEvent", ...event);
        shown = true;
        failures = 0;
      } catch (error) {
        failures += 1;
        owed = true;
        if (signal.aborted) return;
        console.warn(`pgfanout: ${page.url}: load failed, will retry`, error);
        if (await isExpired(page.url)) receive({ type: EXPIRED });
      }
    }
    loading = null;
    if (live) call("onStatus", "live");
  }

  // Waits neither for a load() that never answers nor for one that stop() has given up. load() may return a Response.
  // Then its status counts, and its body is JSON.
  /** @param {AbortSignal} stopped @param {number} time */
  function ask(stopped, time) {
    const signal = AbortSignal.any([stopped, AbortSignal.timeout(time)]);
    const aborted = new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    const state = async () => {
      const answer = await page.load(signal);
      if (!(answer instanceof Response)) return answer;
      if (!answer.ok) throw new Error(`${answer.url} answered ${answer.status}`);
      return answer.json();
    };
    return Promise.race([state(), aborted]);
  }

  // An error of the page's own is reported like any other uncaught error, and the feed goes on.
  /** @param {"onState" | "onEvent" | "onStatus" | "onExpired"} name @param {any[]} values */
  function call(name, ...values) {
    try {
      /** @type {Function | undefined} */ (page[name])?.(...values);
    } catch (error) {
      reportError(error);
    }
  }

  return { open, close };
}

/**
 * Follow a stream with an EventSource that comes back after everything but the end of the session. Return what stops it.
 * @param {string} url @param {string[]} types @param {() => string} cursor @param {Receive} receive
 */
function follow(url, types, cursor, receive) {
  /** @type {EventSource | undefined} */
  let source;
  let began = false;
  let failures = 0;

  function start() {
    // An EventSource that reconnects sends its last id in a header, which takes precedence over this parameter. A new
    // EventSource has no last id.
    const address = new URL(url);
    if (cursor()) address.searchParams.set("last_event_id", cursor());
    const mine = (source = new EventSource(address));

    // After a network error the browser reconnects by itself. A redirect to another site is such an error to it. After a
    // response that is not a stream, such as a proxy's 502 during a deploy, it gives up for good.
    mine.addEventListener("error", async (event) => {
      if (event instanceof MessageEvent) return; // published with the type "error"
      began = false;
      failures += 1;
      receive({ type: LOST });
      const gaveUp = mine.readyState === EventSource.CLOSED;
      if (mine !== source || (!gaveUp && failures < 2)) return;
      if (await isExpired(url)) receive({ type: EXPIRED });
      else if (gaveUp) setTimeout(() => mine === source && start(), backoff(failures));
    });

    for (const type of new Set([...types, "refresh", CURSOR])) {
      mine.addEventListener(type, (/** @type {any} */ { data, lastEventId: id }) => {
        if (data === undefined) return; // the browser's own "open" or "error"
        if (!began) receive({ type: BEGAN });
        began = true;
        failures = 0;
        receive({ type, data, id });
      });
    }
  }

  start();
  return () => {
    source?.close();
    source = undefined;
  };
}

/**
 * Follow a stream together with the tabs of this browser that use the same name. Return what leaves them.
 *
 * The tab that holds the lock leads: it has the stream, and posts what that brings. When its stream opens, and when a tab
 * asks, it posts its cursor (null while the stream is not open). With that a tab joins, and takes what the leader posts
 * from then on. A tab whose own cursor is older, or can't be compared, loads.
 *
 * The browser releases the lock of a tab that is closed, crashes or is discarded. The lock of a leader that is suspended
 * without an event, and so does not answer, is stolen.
 * @param {string} name @param {() => string} cursor @param {(to: Receive) => () => void} start @param {Receive} receive
 */
function share(name, cursor, start, receive) {
  const me = Math.random();
  const channel = new BroadcastChannel(name);
  /** @type {AbortController} */
  let request; // for the lock. Aborted when that is not wanted any more
  let leader = 0; // whose messages this tab takes, or itself
  let open = false; // whether this tab leads and its stream is open
  let skip = ""; // the cursor of a tab that joined a leader which was not as far
  let silence = 0; // how often in succession the leader was not heard

  const say = (/** @type {object} */ what) => channel.postMessage({ from: me, ...what });

  function seek(steal = false) {
    silence = 0;
    request?.abort();
    const { signal } = (request = new AbortController());
    navigator.locks
      .request(name, steal ? { steal } : { signal }, () => (signal.aborted ? null : lead(signal)))
      // The lock was stolen, or this page may not use locks.
      .catch((error) => signal.aborted || (error.name === "AbortError" ? seek() : lead(signal)));
    say({ asks: true });
  }

  /** @param {AbortSignal} signal */
  function lead(signal) {
    /** @type {(() => void) | undefined} */
    let end;
    // What the last leader posted may still be on its way: that the session has expired, for example.
    const timer = setTimeout(() => {
      leader = me;
      say({});
      end = start((message) => {
        if (signal.aborted) return;
        open = message.type !== LOST;
        say({ message, at: message.type === BEGAN ? cursor() : undefined });
        receive(message);
      });
    }, backoff(0));
    return new Promise((resolve) => {
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        end?.();
        leader = 0;
        resolve((open = false));
      });
    });
  }

  channel.onmessage = ({ data: { from, asks, at, message } }) => {
    if (leader === me) {
      if (asks) say({ at: open ? cursor() : null });
    } else if (!asks) {
      silence = 0;
      if (from === leader) {
        if (message?.type === "refresh") skip = "";
        if (message && !reaches(skip, message.id)) receive(message);
      } else if (message && [LOST, EXPIRED].includes(message.type)) receive(message);
      else if (at === undefined) say({ asks: true });
      else if (at !== null) join(from, at);
    }
  };

  /** @param {number} from @param {string} at */
  function join(from, at) {
    const mine = cursor();
    leader = from;
    receive({ type: BEGAN });
    skip = reaches(mine, at) ? mine : "";
    if (!skip) receive({ type: mine ? "refresh" : CURSOR, id: at });
  }

  const pulse = setInterval(() => {
    if (leader === me) return;
    say({ asks: true });
    if (++silence > 2) seek(true);
  }, PULSE);

  seek();
  return () => {
    clearInterval(pulse);
    request.abort();
    channel.close();
  };
}

// Whether a cursor is at or after another one. Only numbers of one history can be compared.
/** @param {string} cursor @param {string | undefined} other */
function reaches(cursor, other = "") {
  const [[, a, start], [, b, otherStart]] = [cursor, other].map((text) => /^(\d+)(-[^-]*)?$/.exec(text) ?? []);
  return a && b && start === otherStart && BigInt(a) >= BigInt(b);
}

/**
 * Whether the server refuses the stream because the session has expired: with 204, 401, 403, or with a redirect to
 * something that is no stream. An EventSource does not show the status. HEAD opens no stream on the server.
 * @param {string} url
 */
async function isExpired(url) {
  const ask = (/** @type {RequestRedirect} */ redirect) => {
    const signal = AbortSignal.timeout(LOAD_TIMEOUT);
    return fetch(url, { method: "HEAD", headers: { Accept: "text/event-stream" }, cache: "no-store", redirect, signal });
  };
  try {
    const { status, redirected, headers } = await ask("follow");
    const moved = redirected && status < 500 && !headers.get("Content-Type")?.includes("event-stream");
    return moved || [204, 401, 403].includes(status);
  } catch {
    // Nobody answers, or the redirect leads to another site, where a script may not follow it.
    return ask("manual").then(({ type }) => type === "opaqueredirect", () => false);
  }
}

// With jitter, so that pages don't retry together.
/** @param {number} failures */
function backoff(failures) {
  return Math.min(LONGEST_WAIT, 100 * 2 ** failures) * (0.5 + Math.random() / 2);
}
