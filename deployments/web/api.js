/** Calls of the REST API, with the key if there is one. */

const KEY = "embeddings-api-key";
/** As the service defines its keys. */
const POSSIBLE_KEY = /^[A-Za-z0-9._~+/-]+=*$/;

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
  /** What keeps a text from being a key; null of one that may be one. */
  problemOf: (text) =>
    POSSIBLE_KEY.test(text)
      ? null
      : "A key has letters from A to Z, digits and - . _ ~ + / only. Is the keyboard set to another language?",
};

/** What the service answered instead of a result: an RFC 9457 problem. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** The service could not be reached. */
export class Unreachable extends Error {}

export async function call(path, { body, signal } = {}) {
  const headers = { Accept: "application/json" };
  // No request can carry it, so none would ever reach the service again.
  if (key.get() !== null && key.problemOf(key.get()) !== null) key.forget();
  if (key.get() !== null) headers["X-API-Key"] = key.get();
  const options = { headers, signal };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Unreachable("The service could not be reached.");
  }
  const answer = await response.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return null;
  });
  if (response.ok && answer !== null) return answer;
  // A health check that fails is no problem document, but says what it is.
  if (path === "health" && answer?.status === "unhealthy") return answer;
  throw new Refused(
    answer?.detail
      ? answer
      : {
          title: "An unexpected answer",
          status: response.status,
          detail: `The service answered ${response.status} without saying why.`,
        },
  );
}

export function curlOf(path, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const url = new URL(path, document.baseURI).href;
  const header = key.get() === null ? "" : ' -H "X-API-Key: $EMBEDDINGS_API_KEY"';
  const json = quoted(JSON.stringify(body));
  return `curl -s ${quoted(url)}${header} -H 'Content-Type: application/json' -d ${json}`;
}
