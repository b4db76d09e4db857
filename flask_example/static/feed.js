// How a page follows a stream of pgfanout. Nothing in here knows what the page shows.
//
//   new Feed({
//     url: "/events?tenant=…",                // where fanout.stream() answers
//     cursor: "1764000000000000",             // pgfanout_cursor(), as of which the page has its state
//     types: ["insert", "update", "delete"],  // the types of event that are published
//     load: async (signal) => …,              // fetches the current state
//     onState: (state) => …,                  // shows it instead of what was there
//     onEvent: (type, payload) => …,          // shows a change
//     onStatus: (status) => …,                // "live", "refreshing" or "reconnecting"
//   }).open();
//
// With a cursor, of a hub with history, the stream begins with what came after it, and goes on from there after each
// interruption: the state is loaded only when a refresh asks for it. Without one, or with an empty one, it is loaded
// whenever the stream opens. An event that is older than the state may come again; newer ones follow it then.

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

    // Without a cursor the state is loaded once the stream is open, not before: what is committed from
    // here on arrives as an event, so nothing falls between the two. The same at every reconnect.
    source.addEventListener("open", () => {
      this.#failures = 0;
      if (!this.#resumes) this.#load();
      else if (!this.#loading) this.#page.onStatus("live");
    });

    // Events were lost, or more were missed than the history gives.
    source.addEventListener("refresh", (event) => {
      this.#remember(event);
      this.#page.onStatus("refreshing");
      this.#load();
    });

    // Nothing for the page, and how far the stream has come: what a new stream has to go on from.
    source.addEventListener("pgfanout.cursor", (event) => this.#remember(event));

    // The server is going away. It has told the browser when to come back, and the browser will.
    source.addEventListener("close", () => this.#page.onStatus("reconnecting"));

    // After a network error the browser reconnects by itself. After an answer that is no stream,
    // such as a proxy's 502 during a deploy, it gives up for good, and retrying is up to us.
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

  // A refresh may come before any id: what was lost is after the cursor that there is.
  #remember(event) {
    if (event.lastEventId) this.#cursor = event.lastEventId;
  }

  // An EventSource that reconnects tells the server its last id in a header, which counts more than this.
  // A new one knows of none.
  #url() {
    if (!this.#resumes) return this.#page.url;
    const url = new URL(this.#page.url, document.baseURI);
    url.searchParams.set("last_event_id", this.#cursor);
    return url;
  }

  // A state that is on its way may be older than the event or newer: the event waits for it.
  #receive(type, payload) {
    if (this.#loading) this.#held.push([type, payload]);
    else this.#page.onEvent(type, payload);
  }

  // One load at a time, and one more after it, however many were asked for meanwhile.
  async #load() {
    this.#loadAgain = true;
    if (this.#loading) return;
    this.#loading = true;
    let failures = 0;
    while (this.#loadAgain) {
      this.#loadAgain = false;
      this.#held = []; // what came before a load begins is in what it returns
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

// Half a second at first, some seconds in the end, and never the same for all pages.
function backoff(failures) {
  return Math.min(LONGEST_WAIT, 1_000 * 2 ** failures) * (0.5 + Math.random() / 2);
}
