// Follows a stream of pgfanout. It does not depend on what the page shows.
//
//   new Feed({
//     url: "/events?tenant=…",                // where fanout.stream() answers
//     cursor: "1764000000000000",             // pgfanout_cursor(), read before the page's state
//     types: ["insert", "update", "delete"],  // the types of the events
//     load: async (signal) => …,              // fetches the current state
//     onState: (state) => …,                  // replaces the state that is shown
//     onEvent: (type, payload) => …,          // shows a change
//     onStatus: (status) => …,                // "live", "refreshing" or "reconnecting"
//   }).open();
//
// With a cursor (from a hub with history) the stream begins after the cursor, and continues after its last event when it
// was interrupted. The state is loaded only on a refresh. Without a cursor, or with an empty one, the state is loaded
// whenever the stream opens. An event that is older than the state may arrive. Newer events then follow it.

const LOAD_TIMEOUT = 10_000;
const LONGEST_WAIT = 5_000;

export class Feed {
  #page;
  #resumes;
  #cursor;
  #source = null;
  #retry = null;
  #failures = 0;
  #loading = false;
  #loadAgain = false;
  #held = [];

  constructor(page) {
    this.#page = page;
    this.#cursor = page.cursor ?? "";
    this.#resumes = this.#cursor !== "";
  }

  open() {
    this.close();
    const source = (this.#source = new EventSource(this.#url()));

    // Without a cursor the state is loaded once the stream is open, not before. Every later commit arrives
    // as an event, so no change is missed between the two. The same holds for every reconnect.
    source.addEventListener("open", () => {
      this.#failures = 0;
      if (!this.#resumes) this.#load();
      else if (!this.#loading) this.#page.onStatus("live");
    });

    // Events were lost, or the page missed more events than the history replays.
    source.addEventListener("refresh", (event) => {
      this.#remember(event);
      this.#page.onStatus("refreshing");
      this.#load();
    });

    // Nothing for the page: only the cursor after which a new stream has to begin.
    source.addEventListener("pgfanout.cursor", (event) => this.#remember(event));

    // The server shuts down. It has told the browser when to reconnect, and the browser will.
    source.addEventListener("close", () => this.#page.onStatus("reconnecting"));

    // After a network error the browser reconnects by itself. After a response that is not a stream,
    // such as a proxy's 502 during a deploy, it gives up for good, so retry here.
    source.addEventListener("error", () => {
      this.#page.onStatus("reconnecting");
      if (source.readyState === EventSource.CLOSED) {
        this.#retry = setTimeout(() => this.open(), backoff(this.#failures++));
      }
    });

    for (const type of this.#page.types) {
      source.addEventListener(type, (event) => {
        this.#remember(event);
        this.#receive(type, JSON.parse(event.data));
      });
    }
  }

  // Idempotent; open() opens it again.
  close() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  // A refresh may come before any id. Then the current cursor stays valid: the lost events are after it.
  #remember(event) {
    if (event.lastEventId) this.#cursor = event.lastEventId;
  }

  // An EventSource that reconnects sends its last id in a header, which takes precedence over this parameter.
  // A new EventSource has no last id.
  #url() {
    if (!this.#resumes) return this.#page.url;
    const url = new URL(this.#page.url, document.baseURI);
    url.searchParams.set("last_event_id", this.#cursor);
    return url;
  }

  // A state that is being loaded may be older or newer than the event, so hold the event until it is there.
  #receive(type, payload) {
    if (this.#loading) this.#held.push([type, payload]);
    else this.#page.onEvent(type, payload);
  }

  // One load at a time. Any number of requests during a load cause one more load after it.
  async #load() {
    this.#loadAgain = true;
    if (this.#loading) return;
    this.#loading = true;
    let failures = 0;
    while (this.#loadAgain) {
      this.#loadAgain = false;
      this.#held = []; // events that arrived before the load begins are in its result
      let state;
      try {
        state = await this.#page.load(AbortSignal.timeout(LOAD_TIMEOUT));
      } catch {
        this.#loadAgain = true;
        await new Promise((resolve) => setTimeout(resolve, backoff(failures++)));
        continue;
      }
      this.#page.onState(state);
      for (const [type, payload] of this.#held) this.#page.onEvent(type, payload);
    }
    this.#loading = false;
    if (this.#source?.readyState === EventSource.OPEN) this.#page.onStatus("live");
  }
}

// Half a second at first and some seconds in the end, with jitter so that pages don't retry together.
function backoff(failures) {
  return Math.min(LONGEST_WAIT, 1_000 * 2 ** failures) * (0.5 + Math.random() / 2);
}
