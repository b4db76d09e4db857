/** What a page shows about its stream. */
export type FeedStatus = "live" | "refreshing" | "reconnecting" | "expired";

export interface FeedOptions<State = any, Payload = any> {
  /** Where the application answers with a stream. Relative to the page. */
  url: string;
  /** The page's cursor, rendered by `pgfanout_cursor()` before its state was read. Without one the state is loaded. */
  cursor?: string | null;
  /** The types of the events that the page wants. Events without a type are `"message"`, which is the default. */
  types?: string | string[];
  /**
   * Gets the current state. A `Response` is checked for its status and decoded as JSON. Anything else is the state.
   * When it fails, or has not answered in time, it is called again. The signal aborts it then.
   */
  load: (signal: AbortSignal) => Promise<Response | State> | Response | State;
  /** Replaces the state that is shown. */
  onState?: (state: State) => void;
  /** Shows a change. It may be older than the state, and newer ones follow then. */
  onEvent?: (type: string, payload: Payload) => void;
  onStatus?: (status: FeedStatus) => void;
  /** The session has expired, so the feed has stopped. Called once. */
  onExpired?: () => void;
  /**
   * The tabs of one browser that give the same key have one stream between them. Render it from the user and the tenant:
   * two users of one browser must not share. Without a key each tab has its own.
   */
  shared?: string | null;
}

/** Follows a stream of pgfanout. */
export class Feed<State = any, Payload = any> {
  constructor(options: FeedOptions<State, Payload>);
  /** Open the stream. Does nothing while it is open. */
  open(): void;
  /** Close the stream. Idempotent. `open` continues after the last event. */
  close(): void;
}
