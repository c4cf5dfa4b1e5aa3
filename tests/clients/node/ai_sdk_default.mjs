// packages: ai @ai-sdk/openai zod
// setting: baseURL
// The provider speaks the responses API.
import { createOpenAI } from '@ai-sdk/openai'
import { converse } from './ai_sdk.mjs'
import * as talk from './talk.mjs'

await converse(createOpenAI({ baseURL: talk.BASE, apiKey: talk.KEY })(talk.MODEL))
