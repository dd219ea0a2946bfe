// Syncline's endpoint as an Edge Function, for projects that want it under a path of its own. Deploy it with
// `verify_jwt = false` (supabase/config.toml): the Data API verifies the token, and answers in the protocol's words.

import { handle, type Project } from "./endpoint.ts";

function project(): Project {
    const url = Deno.env.get("SUPABASE_URL");
    const keys = Deno.env.get("SUPABASE_PUBLISHABLE_KEYS");
    const named: Record<string, string> = keys ? JSON.parse(keys) : {};
    const publishableKey = named.default ?? Object.values(named)[0] ??
        Deno.env.get("SUPABASE_PUBLISHABLE_KEY") ?? Deno.env.get("SUPABASE_ANON_KEY");
    if (!url || !publishableKey) throw new Error("SUPABASE_URL or a publishable key is missing");
    return { url, publishableKey };
}

const here = project();

Deno.serve((request) => handle(request, here));
