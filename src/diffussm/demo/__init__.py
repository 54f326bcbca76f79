"""The page: draw, compare and look inside trained models in a browser.

What it does is plain functions and generators (`request`, `shelf`, `drawing`, `inside`,
`training`); how it looks is text (`html`, `chart`, `page.css`); `page` alone knows gradio.
"""
