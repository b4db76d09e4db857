// The order board: one Shop for each tenant on the page.

import { Feed } from "../_pgfanout/pgfanout.js";

const SHOWN = 6; // cards in a column; a number below them counts the rest
const MOVE = { duration: 460, easing: "cubic-bezier(.2, .75, .2, 1)" };
const REFRESHED_FOR = 2_500;

const NEXT = { new: "preparing", preparing: "ready", ready: "delivered" };
const ACTION = { new: "Prepare", preparing: "Ready", ready: "Deliver" };
const STATE = {
  connecting: "Connecting",
  live: "Live",
  refreshing: "Refreshing",
  refreshed: "Refreshed",
  reconnecting: "Reconnecting",
  expired: "Signed out",
};

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const count = new Intl.NumberFormat("en");

class Shop {
  #root;
  #tenant;
  #orders = new Map();
  #cards = new Map();
  #columns = new Map();
  #changed = new Set(); // ids whose cards light up with the next drawing
  #drawing = false;
  #drawn = false;
  #events = 0;
  #refreshes = 0;
  #state = "connecting";
  #calmDown = null;

  // The page contains its orders as of the cursor or later.
  constructor(root, cursor) {
    this.#root = root;
    this.#tenant = root.dataset.tenant;
    for (const column of root.querySelectorAll(".column")) {
      this.#columns.set(column.dataset.status, column);
    }
    const feed = new Feed({
      url: `/events?tenant=${this.#tenant}`,
      cursor,
      // One stream for all tabs of a browser. There are no users here. Elsewhere the key names the user, too.
      shared: this.#tenant,
      types: ["insert", "update", "delete"],
      load: (signal) => request(`/orders?tenant=${this.#tenant}`, { signal, cache: "no-store" }),
      onState: ({ orders }) => this.#replace(orders),
      onEvent: (type, change) => this.#apply(type, change.row),
      onStatus: (status) => this.#status(status),
    });
    this.#replace(JSON.parse(root.querySelector(".orders").textContent));
    this.#listen();
    feed.open();
  }

  // Called by the feed.

  #replace(rows) {
    const before = this.#orders;
    this.#orders = new Map(rows.map((row) => [row.id, toOrder(row)]));
    for (const [id, { at }] of this.#orders) {
      if (this.#drawn && before.get(id)?.at !== at) this.#changed.add(id);
    }
    this.#draw();
  }

  // Changes arrive in the order of their commits, so the last one is current.
  #apply(type, row) {
    this.#events += 1;
    this.#put(".events", many(this.#events, "event", "events"));
    const order = toOrder(row);
    if (type === "delete") {
      this.#orders.delete(order.id);
    } else {
      this.#orders.set(order.id, order);
      this.#put(".latency", `${count.format(Math.max(0, Date.now() - order.at))} ms`);
    }
    this.#changed.add(order.id);
    this.#draw();
  }

  #status(status) {
    if (status === "live" && this.#state === "refreshing") {
      this.#show("refreshed");
      this.#calmDown = setTimeout(() => this.#show("live"), REFRESHED_FOR);
      return;
    }
    if (status === "refreshing") {
      this.#refreshes += 1;
      this.#put(".refreshes", many(this.#refreshes, "refresh", "refreshes"));
    }
    this.#show(status);
  }

  #show(state) {
    clearTimeout(this.#calmDown);
    this.#state = state;
    this.#root.dataset.state = state;
    this.#put(".state .text", STATE[state]);
  }

  #put(selector, text) {
    this.#root.querySelector(selector).textContent = text;
  }

  // Draws at most once per frame.

  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#drawNow();
    });
  }

  #drawNow() {
    const before = this.#drawn ? this.#positions() : null;
    const focused = this.#cardOf(document.activeElement);
    const shown = this.#arrange();
    for (const [id, card] of this.#cards) {
      if (shown.has(id)) continue;
      card.remove();
      this.#cards.delete(id);
    }
    if (before) this.#animate(before);
    if (focused?.isConnected && !focused.contains(document.activeElement)) {
      (focused.querySelector("button:not([hidden])") ?? focused).focus({ preventScroll: true });
    }
    this.#changed.clear();
    this.#drawn = true;
  }

  // Puts each column's newest cards in their places and returns the ids that are shown.
  #arrange() {
    const shown = new Set();
    for (const [status, column] of this.#columns) {
      const orders = [...this.#orders.values()].filter((order) => order.status === status);
      orders.sort((a, b) => b.at - a.at || b.id - a.id);
      const list = column.querySelector("ol");
      orders.slice(0, SHOWN).forEach((order, place) => {
        const card = this.#card(order);
        if (list.children[place] !== card) list.insertBefore(card, list.children[place] ?? null);
        shown.add(order.id);
      });
      column.querySelector(".count").textContent = count.format(orders.length);
      const more = column.querySelector(".more");
      more.hidden = orders.length <= SHOWN;
      more.textContent = `and ${count.format(orders.length - SHOWN)} more`;
    }
    return shown;
  }

  #card(order) {
    let card = this.#cards.get(order.id);
    if (!card) {
      card = document.getElementById("card").content.firstElementChild.cloneNode(true);
      card.dataset.id = order.id;
      card.querySelector(".number").textContent = `#${order.id}`;
      this.#cards.set(order.id, card);
    }
    card.querySelector(".title").textContent = card.title = order.title;
    const button = card.querySelector("button");
    const action = ACTION[order.status] ?? "";
    button.hidden = !action;
    button.firstElementChild.textContent = action;
    button.setAttribute("aria-label", `${action}: ${order.title}, number ${order.id}`);
    return card;
  }

  #cardOf(element) {
    return this.#root.contains(element) ? element.closest(".card") : null;
  }

  #positions() {
    return new Map([...this.#cards].map(([id, card]) => [id, card.getBoundingClientRect()]));
  }

  // FLIP (first, last, invert, play): each card starts at its old place and moves to its new one.
  #animate(before) {
    for (const id of this.#changed) this.#cards.get(id)?.classList.remove("changed");
    for (const card of this.#cards.values()) card.getAnimations().forEach((one) => one.cancel());
    const after = this.#positions();
    for (const [id, card] of this.#cards) {
      if (this.#changed.has(id)) card.classList.add("changed");
      if (!calm.matches) move(card, before.get(id), after.get(id));
    }
  }

  // What the visitor does.

  #listen() {
    const form = this.#root.querySelector("form");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const title = form.elements.title.value.trim() || this.#surprise();
      this.#ask("/orders", { tenant: this.#tenant, title }).then((done) => done && form.reset());
    });
    this.#root.querySelector(".burst").addEventListener("click", () => {
      this.#ask("/demo/burst", { tenant: this.#tenant });
    });
    this.#root.addEventListener("click", ({ target }) => {
      const card = target.closest(".card button") && this.#cardOf(target);
      if (card) this.#advance(Number(card.dataset.id), card.querySelector("button"));
    });
  }

  // The card moves when the event arrives, here as in every other window.
  async #advance(id, button) {
    const order = this.#orders.get(id);
    if (!order || button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true");
    await this.#ask(`/orders/${id}`, { status: NEXT[order.status] });
    button.removeAttribute("aria-disabled");
  }

  async #ask(url, body) {
    const problem = this.#root.querySelector(".problem");
    try {
      await post(url, body);
      problem.hidden = true;
      return true;
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      return false;
    }
  }

  #surprise() {
    const menu = this.#root.querySelectorAll("datalist option");
    return menu[Math.floor(Math.random() * menu.length)].value;
  }
}

function toOrder({ id, title, status, updated_at }) {
  return { id, title, status, at: Date.parse(updated_at) };
}

function many(number, one, more) {
  return `${count.format(number)} ${number === 1 ? one : more}`;
}

function move(card, from, to) {
  if (!from) {
    card.animate([{ opacity: 0, transform: "scale(.94)" }, { opacity: 1, transform: "none" }], MOVE);
    return;
  }
  const [x, y] = [from.left - to.left, from.top - to.top];
  if (!x && !y) return;
  // A card that moves to another column passes above the others.
  const above = x ? 2 : 1;
  card.animate(
    [
      { transform: `translate(${x}px, ${y}px)`, zIndex: above },
      { transform: "none", zIndex: above },
    ],
    MOVE,
  );
}

async function request(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    throw new Error("The server does not answer.", { cause: error });
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `The server answered ${response.status}.`);
  return body;
}

function post(url, body) {
  return request(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}

const { cursor } = document.querySelector("main").dataset;
for (const root of document.querySelectorAll(".shop")) new Shop(root, cursor);

document.getElementById("cut").addEventListener("click", async () => {
  const result = document.getElementById("cut-result");
  result.textContent = await post("/demo/cut", {}).then(
    ({ cut }) => (cut ? "Cut. It listens again and reads what it missed." : "Nothing was listening."),
    (error) => error.message,
  );
  setTimeout(() => (result.textContent = ""), 4_000);
});

// The status line: the streams of the server's process, and its busy threads.
const STATUS_EVERY = 2_000;

async function showStatus() {
  if (!document.hidden) {
    const text = await request("/status", { cache: "no-store" }).then(
      ({ streams, busy, threads }) =>
        `${many(streams, "stream", "streams")} open, ${many(busy, "thread", "threads")}${threads ? ` of ${threads}` : ""} busy`,
      () => "The server does not answer.",
    );
    document.getElementById("status").textContent = text;
  }
  setTimeout(showStatus, STATUS_EVERY);
}
showStatus();
