// packages: ai @ai-sdk/openai-compatible zod
// setting: baseURL
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { converse } from './ai_sdk.mjs'
import * as talk from './talk.mjs'

await converse(createOpenAICompatible({ name: 'openclaw', baseURL: talk.BASE, apiKey: talk.KEY })(talk.MODEL))
