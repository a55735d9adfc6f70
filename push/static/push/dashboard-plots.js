/** The dashboard's plots: points in, lines and a sentence out. */

const HEIGHT = 170; // px
const GAP = 30; // seconds without a point from which on a line is cut
const WINDOW = 8; // seconds that a rate is of; nodes count once a second
const small = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const large = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const ticks = new Intl.NumberFormat("en", { maximumFractionDigits: 2 }); // 0.25 of a small scale
const format = (value) => (value < 100 ? small : large).format(value);

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const LINES = [
  { css: "--accent", mark: "first" },
  { css: "--second", mark: "second" },
];

/** One plot with one or two lines. */
class Plot {
  /**
   * @param {string} name of the figure
   * @param {{label: string, of: (point: object) => number | null}[]} series
   * @param {string} unit
   * @param {string} zone
   */
  constructor(name, series, unit, zone) {
    const figure = document.querySelector(`[data-plot="${name}"]`);
    this.series = series;
    this.unit = unit;
    this.zone = zone;
    this.summary = figure.querySelector('[data-part="summary"]');
    const place = figure.querySelector('[data-part="canvas"]');
    this.chart = new uPlot(this.#options(place), [[], ...series.map(() => [])], place);
    new ResizeObserver(() => this.chart.setSize(size(place))).observe(place);
  }

  #options(place) {
    const axis = {
      stroke: () => colour("--muted"),
      grid: { stroke: () => colour("--line"), width: 1 },
      ticks: { show: false },
      font: "12px system-ui, sans-serif",
    };
    const lines = this.series.map(({ label }, place) => ({
      label,
      stroke: () => colour(LINES[place].css),
      width: 2,
      points: { show: false },
    }));
    return {
      ...size(place),
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), this.zone),
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, (high ?? 0) * 1.15)] } },
      axes: [
        { ...axis, size: 28, space: 70, values: "{HH}:{mm}" },
        { ...axis, size: 52, values: (_, values) => values.map((value) => ticks.format(value)) },
      ],
      series: [{}, ...lines],
    };
  }

  /** @param {object[]} points in order of time @param {number} span seconds that are shown */
  show(points, span) {
    const columns = this.series.map(({ of }) => points.map(of));
    const times = points.map(({ at }) => at);
    const now = times.at(-1) ?? Date.now() / 1000;
    this.chart.batch(() => {
      this.chart.setData([times, ...columns], false);
      this.chart.setScale("x", { min: now - span, max: now });
    });
    this.#tell(columns);
  }

  #tell(columns) {
    const parts = this.series.map(({ label }, place) => {
      const known = columns[place].filter((value) => value !== null);
      const last = known.at(-1);
      const mark = document.createElement("span");
      mark.className = `key ${LINES[place].mark}`;
      const item = document.createElement("span");
      const text =
        last === undefined
          ? `${label}: nothing yet`
          : `${label} ${format(last)}${this.unit}, highest ${format(Math.max(...known))}`;
      item.append(mark, text);
      return item;
    });
    this.summary.replaceChildren(...parts);
  }
}

/** All plots, and the points of the last minutes. */
export class Plots {
  #points = [];
  #span;
  #plots;

  /** @param {number} span seconds @param {string} zone of the times that are written */
  constructor(span, zone) {
    this.#span = span;
    this.#plots = [
      new Plot(
        "pushes",
        [{ label: "Accepted", of: ({ pushRate }) => pushRate }],
        "/s",
        zone,
      ),
      new Plot(
        "deliveries",
        [{ label: "Written", of: ({ deliveryRate }) => deliveryRate }],
        "/s",
        zone,
      ),
      new Plot(
        "latency",
        [
          { label: "Median", of: ({ p50 }) => p50 },
          { label: "p99", of: ({ p99 }) => p99 },
        ],
        " ms",
        zone,
      ),
      new Plot("sessions", [{ label: "Open", of: ({ sessions }) => sessions }], "", zone),
      new Plot(
        "closes",
        [
          { label: "By clients", of: ({ rates }) => rates.client_closes },
          { label: "By the server", of: ({ rates }) => rates.server_closes },
        ],
        "/min",
        zone,
      ),
      new Plot(
        "drops",
        [
          { label: "Dropped", of: ({ rates }) => rates.drops },
          { label: "Refused", of: ({ rates }) => rates.refusals },
        ],
        "/min",
        zone,
      ),
    ];
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** Take pictures in; those that are older than the last one are left out. */
  add(...pictures) {
    for (const picture of pictures) {
      const last = this.#points.findLast(({ isGap }) => !isGap);
      if (last && picture.at <= last.at) continue;
      const passed = last ? picture.at - last.at : Infinity;
      if (last && passed > GAP) this.#points.push(gap(last.at + 1));
      this.#points.push(pointOf(picture, this.#before(picture)));
    }
    const oldest = (this.#points.at(-1)?.at ?? 0) - this.#span;
    this.#points = this.#points.filter(({ at }) => at >= oldest);
  }

  /** The point that rates are counted from, if there is one since the last gap. */
  #before({ at }) {
    const points = this.#points.slice(this.#points.findLastIndex(({ isGap }) => isGap) + 1);
    return points.findLast((point) => at - point.at >= WINDOW) ?? points[0];
  }

  draw() {
    for (const plot of this.#plots) plot.show(this.#points, this.#span);
  }
}

const NO_RATES = { client_closes: null, server_closes: null, drops: null, refusals: null };

function pointOf({ at, sessions, pushes, deliveries, latency, tally }, before) {
  // A node that has gone has taken its deliveries along: then there is no rate, nor where the
  // number was not known.
  const rate = (now, then) => (now >= then ? (now - then) / (at - before.at) : null);
  const perMinute = (name) => {
    const found = rate(tally?.[name], before?.tally?.[name]);
    return found === null ? null : 60 * found;
  };
  return {
    at,
    tally,
    rates: Object.fromEntries(Object.keys(NO_RATES).map((name) => [name, perMinute(name)])),
    pushes,
    deliveries: deliveries ?? undefined,
    sessions: sessions ?? null,
    pushRate: rate(pushes, before?.pushes),
    deliveryRate: rate(deliveries ?? undefined, before?.deliveries),
    p50: latency?.p50 ?? null,
    p99: latency?.p99 ?? null,
  };
}

function gap(at) {
  return {
    at,
    isGap: true,
    rates: NO_RATES,
    sessions: null,
    pushRate: null,
    deliveryRate: null,
    p50: null,
    p99: null,
  };
}

function size(place) {
  return { width: Math.max(100, place.clientWidth), height: HEIGHT };
}
