// Problems (docs/protocol.md), and what PostgREST's error objects mean in their words.

export const LIMITS = { max_operations: 500, max_bytes: 8 * 1024 * 1024 };

const PROBLEMS = {
    invalid_request: [400, "The request is not valid"],
    too_deep: [400, "The body is nested too deep"],
    unknown_path: [404, "There is no such path"],
    method_not_allowed: [405, "The path takes another method"],
    unsupported_media: [415, "The body's type or encoding is not supported"],
    body_too_large: [413, "The body is too large"],
    unauthorized: [401, "The token is missing or not valid"],
    forbidden: [403, "The token does not allow this"],
    wrong_user: [403, "The file belongs to another user than the token"],
    wrong_scope: [403, "The token does not allow this scope"],
    wrong_device: [403, "The device id belongs to another user"],
    rate_limited: [429, "Too many requests"],
    unavailable: [503, "The endpoint cannot answer for now"],
    internal: [500, "The endpoint failed"],
} as const;

export type Code = keyof typeof PROBLEMS;

export interface More {
    detail?: string;
    field?: string;
    limits?: typeof LIMITS;
}

/** A refusal as an exception, so that the way of a request reads straight. */
export class Refusal extends Error {
    constructor(readonly code: Code, readonly more: More = {}) {
        super(code);
    }
}

export function problem(code: Code, more: More = {}, retryAfter?: string | null): Response {
    const [status, title] = PROBLEMS[code];
    if (code === "body_too_large") more = { limits: LIMITS, ...more };
    const headers = new Headers({ "content-type": "application/problem+json" });
    if (retryAfter) headers.set("retry-after", retryAfter);
    if (status === 401) headers.set("www-authenticate", "Bearer");
    return new Response(JSON.stringify({ code, status, title, ...more }), { status, headers });
}

export interface PostgrestError {
    code: string;
    message: string;
}

/** PostgREST's error object; none if the text is something else. */
export function postgrestError(text: string): PostgrestError | undefined {
    try {
        const said = JSON.parse(text);
        const whole = said !== null && typeof said === "object" && "details" in said && "hint" in said;
        if (whole && typeof said.code === "string" && typeof said.message === "string") return said;
    } catch {
        // Not JSON: a gateway's page.
    }
    return undefined;
}

/** By the code first: the status misleads (docs/protocol.md, "On Supabase"). */
export function meaning(code: string, status: number): Code {
    if (code in PROBLEMS) return code as Code;
    if (/^(PGRST202|PGRST203|PGRST106|57014|55P03|25006)$/.test(code)) return "unavailable";
    if (/^PGRST30[123]$/.test(code)) return "unauthorized";
    if (code === "42501") return status === 401 ? "unauthorized" : "forbidden";
    if (code === "54001") return "too_deep";
    if (code === "P0001") return "invalid_request";
    if (/^[0-9A-Z]{5}$/.test(code) && !code.startsWith("PT")) {
        if (/^(08|40|53|57|58)/.test(code)) return "unavailable";
        if (/^(22|23|54)/.test(code)) return "invalid_request";
        return /^(0L|0P|28)/.test(code) ? "forbidden" : "internal";
    }
    return byStatus(status);
}

export function byStatus(status: number): Code {
    if (status === 413) return "body_too_large";
    if (status === 429) return "rate_limited";
    if ([408, 425, 502, 503, 504].includes(status)) return "unavailable";
    if (status === 401) return "unauthorized";
    if (status === 403) return "forbidden";
    return status >= 500 ? "internal" : "invalid_request";
}

/** What Postgres says of a value may quote it; the name of a constraint is no value. */
export function detail(error: PostgrestError): string | undefined {
    const quotes = /^[0-9A-Z]{5}$/.test(error.code) && !/^(23|P0|PT)/.test(error.code);
    if (!quotes) return error.message.slice(0, 200);
    return `The database answered ${error.code}.`;
}
