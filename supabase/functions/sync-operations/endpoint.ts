// The endpoint of docs/protocol.md in front of the database's functions: `…/v1/push` and `…/v1/pull`.
//
// It decides nothing. It unpacks the body, hands its bytes with the caller's token to `syncline_push` or `syncline_pull` by way
// of the project's Data API, and gives the answer back, with what PostgREST says by itself translated into problems. Tokens are
// verified there too; nothing here trusts one.

import { readBody } from "./body.ts";
import { byStatus, detail, meaning, postgrestError, problem, Refusal } from "./problem.ts";

export interface Project {
    /** Where its Data API is. */
    url: string;
    /** Names the project to the gateway. */
    publishableKey: string;
}

/** The Data API gives a statement at most a minute. */
const TIMEOUT_MS = 65_000;
/** Shorter answers are sent as they are. */
const COMPRESS_FROM_BYTES = 1024;

const FUNCTIONS: Record<string, string> = { push: "syncline_push", pull: "syncline_pull" };

export async function handle(request: Request, project: Project): Promise<Response> {
    let response: Response;
    try {
        response = await answer(request, project);
    } catch (error) {
        if (error instanceof Refusal) {
            response = problem(error.code, error.more);
        } else {
            // The name alone: a message may quote what was sent.
            console.error("sync-operations failed:", error instanceof Error ? error.name : typeof error);
            response = problem("internal");
        }
    }
    return await finished(request, response);
}

async function answer(request: Request, project: Project): Promise<Response> {
    const path = /\/v1\/(push|pull)$/.exec(new URL(request.url).pathname);
    if (!path) throw new Refusal("unknown_path");
    if (request.method !== "POST") throw new Refusal("method_not_allowed");
    const token = request.headers.get("authorization");
    if (!token || !/^bearer \S/i.test(token)) throw new Refusal("unauthorized", { detail: "there is no bearer token" });
    const body = await readBody(request);
    let upstream: Response;
    let text: ArrayBuffer;
    try {
        upstream = await fetch(`${project.url.replace(/\/+$/, "")}/rest/v1/rpc/${FUNCTIONS[path[1]]}`, {
            method: "POST",
            headers: {
                "accept": "application/json",
                "apikey": project.publishableKey,
                "authorization": token,
                "content-profile": "public",
                "content-type": "application/json",
            },
            body,
            redirect: "manual",
            signal: AbortSignal.timeout(TIMEOUT_MS),
        });
        text = await upstream.arrayBuffer();
    } catch {
        throw new Refusal("unavailable", { detail: "the Data API does not answer" });
    }
    return upstream.headers.has("syncline-protocol") ? passedOn(upstream, text) : translated(upstream, text);
}

/** What the functions said. */
function passedOn(upstream: Response, body: ArrayBuffer): Response {
    const headers = new Headers();
    for (const name of ["content-type", "retry-after", "www-authenticate"]) {
        const value = upstream.headers.get(name);
        if (value) headers.set(name, value);
    }
    return new Response(body, { status: upstream.status, headers });
}

/** What something else said: PostgREST, or the gateway in front of it. */
function translated(upstream: Response, body: ArrayBuffer): Response {
    const retryAfter = upstream.headers.get("retry-after");
    const error = postgrestError(new TextDecoder().decode(body));
    if (!error) {
        console.error("sync-operations: the gateway answered", upstream.status);
        const code = upstream.status === 413 ? byStatus(413) : "unavailable";
        return problem(code, { detail: "the Data API gave no answer of the functions" }, retryAfter);
    }
    const code = meaning(error.code, upstream.status);
    if (code === "internal" || code === "unavailable") {
        console.error("sync-operations: the Data API answered", upstream.status, error.code.slice(0, 10));
    }
    // The whole body is at fault, as an endpoint of Syncline's own would say.
    const field = error.code === "PGRST102" ? { field: "$" } : {};
    return problem(code, { detail: detail(error), ...field }, retryAfter);
}

/** Every answer is marked as the endpoint's, and packed if that is asked for. */
async function finished(request: Request, response: Response): Promise<Response> {
    const headers = new Headers(response.headers);
    headers.set("syncline-protocol", "1");
    headers.append("vary", "accept-encoding");
    const body = new Uint8Array(await response.arrayBuffer());
    const accepts = /(^|[\s,])gzip\s*(;(?!\s*q=0(\.0*)?\s*(,|$))|,|$)/i.test(
        request.headers.get("accept-encoding") ?? "",
    );
    if (!accepts || body.length < COMPRESS_FROM_BYTES) {
        return new Response(body, { status: response.status, headers });
    }
    headers.set("content-encoding", "gzip");
    const packed = new Blob([body]).stream().pipeThrough(new CompressionStream("gzip"));
    return new Response(packed, { status: response.status, headers });
}
