/**
 * The token, which came in the link's fragment, and questions that carry it. It stays in this tab's storage and in no address.
 */

const KEY = "postern-token";
const ASK_MS = 8000;

/** The server refused the token. */
export class RefusedError extends Error {}

let token = "";

/** Take the token out of the address, or from before this page was loaded anew. @returns {boolean} whether there is one */
export function begin() {
  const given = /^#token=([A-Za-z0-9_-]+)$/.exec(location.hash);
  if (given !== null) {
    token = given[1];
    history.replaceState(null, "", `${location.pathname}#/mesh`);
    try {
      sessionStorage.setItem(KEY, token);
    } catch {
      // until this page is loaded anew
    }
    return true;
  }
  try {
    token = sessionStorage.getItem(KEY) ?? "";
  } catch {
    token = "";
  }
  return token !== "";
}

/**
 * @param {string} path
 * @param {Record<string, string>} [query]
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
export async function get(path, query = {}, signal = AbortSignal.timeout(ASK_MS)) {
  const text = new URLSearchParams(query).toString();
  const answer = await fetch(text ? `${path}?${text}` : path, {
    headers: { authorization: `Bearer ${token}` },
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    signal,
  });
  if (answer.status === 401) throw new RefusedError("the token is not of this dashboard");
  return answer;
}

/**
 * What the server says in JSON. Throws an Error in words for people.
 * @param {string} path
 * @param {Record<string, string>} [query]
 * @returns {Promise<any>}
 */
export async function ask(path, query = {}) {
  let answer;
  try {
    answer = await get(path, query);
  } catch (error) {
    if (error instanceof RefusedError) throw error;
    throw new Error("The dashboard does not answer.");
  }
  const told = await answer.json();
  if (!answer.ok) throw new Error(String(told.error ?? answer.statusText));
  return told;
}
