// What both providers of the AI SDK say.
import { stepCountIs, streamText, tool } from 'ai'
import { z } from 'zod'
import * as talk from './talk.mjs'

export async function converse(model) {
  const add = tool({
    description: 'Adds',
    inputSchema: z.object({ a: z.number().int(), b: z.number().int() }),
    execute: async input => talk.result(input),
  })
  const messages = []
  for (const content of talk.ASKED) {
    messages.push({ role: 'user', content })
    const asked = { model, system: talk.SYSTEM, messages, tools: { add }, maxOutputTokens: 256 }
    const answer = streamText({ ...asked, stopWhen: stepCountIs(talk.MOST_CALLS), onError: ({ error }) => { throw error } })
    await answer.consumeStream()
    messages.push(...(await answer.response).messages)
  }
}
